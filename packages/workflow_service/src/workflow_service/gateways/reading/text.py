"""The shape every text leaves the reading process in: clean characters, known pages, a known size."""

import re
from collections.abc import Sequence

from workflow_service.domain.document import DocumentText, Page, Span
from workflow_service.ports import UnreadableDocumentError

# One line end, as between any two lines: a sentence may go on over the page.
PAGE_BREAK = "\n"
_LINE_END = re.compile("\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """Return ``text`` with line ends as ``\\n`` and without what JSON columns refuse: NUL and lone surrogates."""
    return _SURROGATE.sub("\ufffd", _LINE_END.sub("\n", text.replace("\0", "")))


def join_pages(pages: Sequence[str], max_chars: int) -> DocumentText:
    """Put clean pages into one text, page by page, and say where each stands.

    Raises:
        UnreadableDocumentError: The text is longer than ``max_chars``.
    """
    spans: list[Page] = []
    start = 0
    for number, page in enumerate(pages, start=1):
        spans.append(Page(number, Span(start, start + len(page))))
        start += len(page) + len(PAGE_BREAK)
    text = PAGE_BREAK.join(pages)
    check_length(len(text), max_chars)
    return DocumentText(text, tuple(spans))


def check_length(length: int, max_chars: int) -> None:
    """Raise UnreadableDocumentError if a text of ``length`` characters is too long."""
    if length > max_chars:
        raise UnreadableDocumentError(
            f"the document holds more than {max_chars:,} characters of text; split it and upload the parts"
        )
