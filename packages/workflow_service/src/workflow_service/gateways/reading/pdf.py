"""Reads the text layer of a PDF, page by page, without the lines that repeat on every page."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pypdfium2 as pdfium

from workflow_service.domain.document import DocumentText
from workflow_service.ports import UnreadableDocumentError

from .limits import Limits
from .text import check_length, clean, join_pages

# PDFium writes a hyphen that it takes for one made by the line break as U+FFFE or U+0002.
_BROKEN_WORD = re.compile("[\ufffe\x02]\n?")
_NUMBER = re.compile(r"\d+", re.ASCII)
_RUNNING_LINES = 2  # lines at the top and at the bottom of a page that may be its header and footer
_FEWEST_PAGES_WITH_RUNNING_LINES = 2


def read_pdf(content: bytes, limits: Limits) -> DocumentText:
    """Return the text of every page, one `Page` per PDF page.

    Raises:
        UnreadableDocumentError: The file is damaged, encrypted, too long, or holds pictures of text only.
    """
    pages = without_running_lines(_pages(content, limits))
    if not any(page.strip() for page in pages):
        raise UnreadableDocumentError(
            "the PDF has no text layer (it is probably a scan); run text recognition on it and upload the result"
        )
    return join_pages(pages, limits.max_chars)


def _pages(content: bytes, limits: Limits) -> list[str]:
    try:
        document = pdfium.PdfDocument(content)
    except pdfium.PdfiumError as error:
        raise UnreadableDocumentError(_reason(error)) from error
    try:
        if len(document) > limits.max_pages:
            raise UnreadableDocumentError(
                f"the PDF has {len(document):,} pages; at most {limits.max_pages:,} are read"
            )
        pages: list[str] = []
        length = 0
        for index in range(len(document)):
            pages.append(_page_text(document, index))
            length += len(pages[-1])
            check_length(length, limits.max_chars)  # stop here, before the rest takes memory and time
        return pages
    finally:
        document.close()


def _page_text(document: pdfium.PdfDocument, index: int) -> str:
    try:
        page = document[index]
        try:
            textpage = page.get_textpage()
            try:
                return _BROKEN_WORD.sub("", clean(textpage.get_text_bounded()))
            finally:
                textpage.close()
        finally:
            page.close()
    except pdfium.PdfiumError as error:
        raise UnreadableDocumentError(f"page {index + 1} of the PDF is damaged and cannot be read") from error


def _reason(error: pdfium.PdfiumError) -> str:
    match error.err_code:  # FPDF_GetLastError
        case 4 | 5:  # password, security handler
            return "the PDF is encrypted; remove its password and upload it again"
        case 3:  # format
            return "the PDF is damaged or incomplete; export it again from the program that made it"
        case _:
            return f"the PDF cannot be opened ({error})"


def without_running_lines(pages: Sequence[str]) -> list[str]:
    """Return the pages without the headers and footers that stand on all of them.

    A header in the middle of a sentence that spans two pages would tear the sentence apart. A line goes only if
    it stands among the outer two at the same edge of every page, the same but for a number that counts the pages:
    rows of a price list, which differ in more, stay.
    """
    if len(pages) < _FEWEST_PAGES_WITH_RUNNING_LINES:
        return list(pages)
    split = [page.split("\n") for page in pages]
    heads = _on_every_page([lines[:_RUNNING_LINES] for lines in split])
    feet = _on_every_page([lines[-_RUNNING_LINES:] for lines in split])
    return ["\n".join(_body(lines, heads, feet)).strip("\n") for lines in split]


def _masked(line: str) -> str:
    return _NUMBER.sub("#", line.strip())


def _on_every_page(edges: Sequence[Sequence[str]]) -> frozenset[str]:
    """Return the lines, with # for numbers, that run through all pages."""
    counted = Counter(line for edge in edges for line in map(_masked, edge))
    common = frozenset.intersection(*(frozenset(map(_masked, edge)) for edge in edges)) - {""}
    return frozenset(
        line
        for line in common
        if counted[line] == len(edges)
        and _counts_pages([_NUMBER.findall(each) for edge in edges for each in edge if _masked(each) == line])
    )


def _counts_pages(numbers: Sequence[Sequence[str]]) -> bool:
    """Tell whether the numbers of a line, page by page, stay the same but for one that grows by one."""
    changing = [column for column in zip(*numbers, strict=True) if len(set(column)) > 1]
    if len(changing) > 1:
        return False
    return all(int(after) == int(before) + 1 for column in changing for before, after in pairwise(column))


def _body(lines: Sequence[str], heads: frozenset[str], feet: frozenset[str]) -> list[str]:
    edge = len(lines) - _RUNNING_LINES
    return [
        line
        for index, line in enumerate(lines)
        if not ((index < _RUNNING_LINES and _masked(line) in heads) or (index >= edge and _masked(line) in feet))
    ]
