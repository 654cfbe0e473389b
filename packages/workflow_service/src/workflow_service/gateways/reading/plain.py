"""Reads plain text and Markdown: UTF-8, or UTF-16 that says so with a byte order mark."""

import codecs

from workflow_service.domain.document import DocumentText
from workflow_service.ports import UnreadableDocumentError

from .limits import Limits
from .text import clean, join_pages

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_plain(content: bytes, limits: Limits) -> DocumentText:
    """Return the text as it is written, as one page.

    Raises:
        UnreadableDocumentError: The bytes are no text in a known encoding; an encoding is never guessed, for a
            wrong guess would change names and amounts without a word.
    """
    text = _decode(content)
    if "\0" in text:
        raise UnreadableDocumentError("the file is sent as text, but its content is binary (it holds NUL bytes)")
    if not text.strip():
        raise UnreadableDocumentError("the file holds nothing but white space")
    return join_pages([clean(text)], limits.max_chars)


def _decode(content: bytes) -> str:
    encoding = "utf-16" if content.startswith(_UTF16_MARKS) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        wrong = content[error.start : error.start + 1].hex()
        raise UnreadableDocumentError(
            f"the text is not {encoding.removesuffix('-sig').upper()} (byte 0x{wrong} at offset {error.start:,}); "
            "save it as UTF-8 and upload it again"
        ) from error
