"""Reads a Word document: paragraphs and tables in the order of the body, with the numbers Word would show.

Tracked insertions count as text and tracked deletions do not: what is read is the contract as it would stand if
the changes were accepted. Headers, footers, footnotes and comments are not read.
"""

import io
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import docx
from docx.opc.exceptions import OpcError
from docx.oxml.ns import qn

from workflow_service.domain.document import DocumentText
from workflow_service.ports import UnreadableDocumentError

from .limits import Limits
from .numbering import Numbering
from .text import check_length, clean, join_pages

# python-docx's elements are lxml's, and lxml has no types of its own.
_Element = Any

# SyntaxError is what lxml raises on bad XML; the rest comes from archives that lack parts or hold wrong ones.
_DAMAGES = (OpcError, zipfile.BadZipFile, zlib.error, SyntaxError, KeyError, ValueError)
_MAX_UNPACKED = 200 * 1024 * 1024  # bytes; a large contract with pictures stays under a tenth of it
_MAX_PARTS = 5000
_TRANSPARENT = {qn(f"w:{name}") for name in ("sdt", "sdtContent", "ins", "moveTo", "customXml", "smartTag")}
_HIDDEN = {qn(f"w:{name}") for name in ("del", "moveFrom", "txbxContent", "pPr", "rPr", "instrText", "delText")}
_MARKS = {qn("w:tab"): "\t", qn("w:br"): "\n", qn("w:cr"): "\n", qn("w:noBreakHyphen"): "-"}


def read_word(content: bytes, limits: Limits) -> DocumentText:
    """Return the text of the body as one page: Word decides on pages only when it prints.

    Raises:
        UnreadableDocumentError: The file is damaged, unpacks to too much, or holds no text.
    """
    _check_archive(content)
    try:
        document = docx.Document(io.BytesIO(content))
        blocks = list(_blocks(document, limits))
    except _DAMAGES as error:
        raise UnreadableDocumentError(
            f"the Word document is damaged ({error}); open it in Word, save it and upload it again"
        ) from error
    if not blocks:
        raise UnreadableDocumentError("the Word document holds no text")
    return join_pages(["\n\n".join(blocks)], limits.max_chars)


def _check_archive(content: bytes) -> None:
    """Refuse what is no complete archive, and what would unpack to more than a document needs."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise UnreadableDocumentError(
            f"the Word document is incomplete or damaged ({error}); upload it again"
        ) from error
    # zipfile never unpacks more of a part than its directory entry declares, so the sum of these binds.
    if len(parts) > _MAX_PARTS or sum(part.file_size for part in parts) > _MAX_UNPACKED:
        raise UnreadableDocumentError(
            f"the Word document unpacks to more than {_MAX_UNPACKED // 1024**2} MiB; it is not read"
        )


def _blocks(document: Any, limits: Limits) -> Iterator[str]:
    """Yield paragraphs and tables that hold text, in order."""
    numbering = Numbering(document)
    length = 0
    for element in _visible(document.element.body):
        block = _table(element, numbering) if element.tag == qn("w:tbl") else _paragraph(element, numbering)
        length += len(block)
        check_length(length, limits.max_chars)
        if block:
            yield block


def _visible(parent: _Element) -> Iterator[_Element]:
    """Yield the paragraphs and tables right under ``parent``, looking through content controls and insertions."""
    for child in parent:
        if child.tag in (qn("w:p"), qn("w:tbl")):
            yield child
        elif child.tag in _TRANSPARENT:
            yield from _visible(child)


def _paragraph(element: _Element, numbering: Numbering) -> str:
    text = clean("".join(_runs(element))).strip()
    return f"{numbering.label(element)}{text}" if text else ""


def _runs(element: _Element) -> Iterator[str]:
    for child in element:
        if child.tag == qn("w:t"):
            yield child.text or ""
        elif child.tag in _MARKS:
            yield _MARKS[child.tag]
        elif child.tag not in _HIDDEN:
            yield from _runs(child)


def _table(element: _Element, numbering: Numbering) -> str:
    rows = (row for row in element.iter(qn("w:tr")) if next(row.iterancestors(qn("w:tbl"))) is element)
    lines = (" | ".join(_cell(cell, numbering) for cell in row.iterchildren(qn("w:tc"))) for row in rows)
    return "\n".join(line for line in lines if line.strip(" |"))


def _cell(element: _Element, numbering: Numbering) -> str:
    """Return a cell's text on one line: a row is a line, and a table inside a cell is read as part of it."""
    parts = (
        _table(child, numbering) if child.tag == qn("w:tbl") else _paragraph(child, numbering)
        for child in _visible(element)
    )
    return " ".join(" ".join(parts).split())
