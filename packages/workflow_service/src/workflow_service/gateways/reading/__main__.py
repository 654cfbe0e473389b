"""``python -m workflow_service.gateways.reading MEDIA_TYPE MEMORY_BYTES PROCESSOR_SECONDS MAX_PAGES MAX_CHARS``.

Standard output carries one JSON object: ``{"text": …, "pages": [[start, end], …]}``, or ``{"error": …}`` with a
reason for the user. Any other end of the process means that the document broke its reader.
"""

import json
import os
import sys
from contextlib import suppress
from typing import BinaryIO

from workflow_service.domain.document import DocumentText
from workflow_service.domain.file_format import DOCX, PDF
from workflow_service.ports import UnreadableDocumentError

from .limits import Limits, confine
from .media import check_media_type


def read(content: bytes, media_type: str, limits: Limits) -> DocumentText:
    """Return the text of a document of a known type.

    Raises:
        UnreadableDocumentError: With a reason for the user.
    """
    check_media_type(content, media_type)
    if media_type == PDF:
        from .pdf import read_pdf

        return read_pdf(content, limits)
    if media_type == DOCX:
        from .word import read_word

        return read_word(content, limits)
    from .plain import read_plain

    return read_plain(content, limits)


def answer(source: BinaryIO, media_type: str, limits: Limits) -> dict[str, object]:
    """Return what the parent process is told about a document."""
    try:
        document = read(source.read(), media_type, limits)
    except UnreadableDocumentError as error:
        return {"error": str(error)}
    except (MemoryError, RecursionError):
        return {"error": f"the document needs more than {limits.memory_bytes // 1024**2} MiB of memory to be read"}
    return {"text": document.text, "pages": [[page.span.start, page.span.end] for page in document.pages]}


def main(arguments: list[str]) -> None:
    """Read the document on standard input under the limits given."""
    media_type, *numbers = arguments
    limits = Limits(*map(int, numbers))
    # A library that prints, in Python or in C, must not end up inside the answer.
    answers = os.dup(1)
    os.dup2(2, 1)
    confine(limits)
    found = answer(sys.stdin.buffer, media_type, limits)
    # Who asked may have been killed meanwhile: then there is nobody to answer, and nothing to complain of.
    with suppress(BrokenPipeError), os.fdopen(answers, "wb") as output:
        output.write(json.dumps(found).encode("ascii"))


if __name__ == "__main__":
    main(sys.argv[1:])
