"""Builds the sample contracts from their sources: ``python build.py [FOLDER]``, by default into the package.

The same source gives the same bytes: dates and ids are fixed. The PDF is the source set in pages; the DOCX carries
the numbers of its clauses as Word does, in its list definitions and not in its text.
"""

import io
import re
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docx
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls, qn
from docx.shared import Pt
from reportlab.lib.enums import TA_CENTER, TA_JUSTIFY
from reportlab.lib.pagesizes import LETTER
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import inch
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import BaseDocTemplate, Flowable, Frame, PageTemplate, Paragraph

SOURCES = Path(__file__).parent
PACKAGE_SAMPLES = SOURCES.parent / "src" / "workflow_service" / "samples"
_FIXED = datetime(2026, 1, 1, tzinfo=UTC)
_FIRST_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_NUMBERED = ((re.compile(r"\d+\. "), 0), (re.compile(r"\d+\.\d+ "), 1), (re.compile(r"\([a-z]\) "), 2))


def blocks(source: Path) -> list[str]:
    """Return the paragraphs and tables of a source."""
    return source.read_text(encoding="utf-8").strip().split("\n\n")


def level_of(block: str) -> tuple[int | None, str]:
    """Return the list level that a block's number stands for, and the block without it."""
    for pattern, level in _NUMBERED:
        if found := pattern.match(block):
            return level, block[found.end() :]
    return None, block


def build_pdf(source: Path, target: Path) -> None:
    """Set a source in pages with a header and «Page n of m»."""
    body = ParagraphStyle(
        "body", fontName="Times-Roman", fontSize=11, leading=14.5, spaceAfter=8, alignment=TA_JUSTIFY
    )
    item = ParagraphStyle("item", body, leftIndent=24)
    heading = ParagraphStyle("heading", body, fontName="Times-Bold", spaceBefore=8, keepWithNext=1)
    title = ParagraphStyle("title", heading, fontSize=15, leading=20, alignment=TA_CENTER, spaceAfter=14)

    def style(block: str, is_first: bool) -> ParagraphStyle:
        if is_first:
            return title
        level, rest = level_of(block)
        if rest.isupper():
            return heading
        return item if level == 2 else body

    def story() -> list[Flowable]:
        return [Paragraph(text, style(text, number == 0)) for number, text in enumerate(blocks(source))]

    def write(pages: int) -> tuple[bytes, int]:
        """Set the story, saying it has ``pages`` pages, and return the file and how many it has."""

        def edges(canvas: Canvas, _template: BaseDocTemplate) -> None:
            canvas.setFont("Times-Italic", 9)
            canvas.drawString(
                inch, LETTER[1] - 0.6 * inch, "Halden / Brightwater: Mutual Non-Disclosure Agreement"
            )
            canvas.drawCentredString(LETTER[0] / 2, 0.55 * inch, f"Page {canvas.getPageNumber()} of {pages}")

        output = io.BytesIO()
        template = BaseDocTemplate(output, pagesize=LETTER, title="Mutual Non-Disclosure Agreement", invariant=1)
        frame = Frame(inch, 0.9 * inch, LETTER[0] - 2 * inch, LETTER[1] - 1.8 * inch)
        template.addPageTemplates(PageTemplate(frames=[frame], onPage=edges))
        template.build(story())
        return output.getvalue(), template.page

    _, count = write(0)
    content, _ = write(count)
    target.write_bytes(content)


def build_docx(source: Path, target: Path) -> None:
    """Write a source as a Word document: headings, numbered clauses, tables."""
    document = docx.Document()
    properties = document.core_properties
    properties.title, properties.author = "Services Agreement", "workflow_service samples"
    properties.created = properties.modified = _FIXED
    document.styles["Normal"].font.size = Pt(11)
    list_id = _define_numbering(document)
    for number, block in enumerate(blocks(source)):
        if " | " in block:
            _add_table(document, [row.split(" | ") for row in block.split("\n")])
        elif number == 0:
            document.add_paragraph(block, style="Title")
        elif block.startswith("# "):
            document.add_paragraph(block[2:], style="Heading 1")
        else:
            _add_clause(document, block, list_id)
    output = io.BytesIO()
    document.save(output)
    target.write_bytes(_with_fixed_dates(output.getvalue()))


def _add_clause(document: Any, block: str, list_id: int) -> None:
    level, text = level_of(block)
    paragraph = document.add_paragraph(text, style="Heading 1" if level == 0 else "Normal")
    if level is not None:
        properties = paragraph._p.get_or_add_pPr().get_or_add_numPr()
        properties.get_or_add_ilvl().val = level
        properties.get_or_add_numId().val = list_id


def _add_table(document: Any, rows: list[list[str]]) -> None:
    table = document.add_table(rows=len(rows), cols=len(rows[0]), style="Table Grid")
    for row, texts in zip(table.rows, rows, strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text


def _define_numbering(document: Any) -> int:
    """Add a list with the levels ``1.``, ``1.1`` and ``(a)`` and return its id."""
    numbering = document.part.numbering_part.element
    levels = "".join(
        f'<w:lvl w:ilvl="{level}"><w:start w:val="1"/><w:numFmt w:val="{form}"/><w:lvlText w:val="{pattern}"/>'
        f'<w:lvlJc w:val="left"/></w:lvl>'
        for level, (form, pattern) in enumerate(
            (("decimal", "%1."), ("decimal", "%1.%2"), ("lowerLetter", "(%3)"))
        )
    )
    abstract = parse_xml(f'<w:abstractNum {nsdecls("w")} w:abstractNumId="90">{levels}</w:abstractNum>')
    numbering.insert(len(numbering.findall(qn("w:abstractNum"))), abstract)  # all of them stand before the lists
    return int(numbering.add_num(90).numId)


def _with_fixed_dates(content: bytes) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as read, zipfile.ZipFile(output, "w") as write:
        for name in read.namelist():
            entry = zipfile.ZipInfo(name, _FIRST_ZIP_DATE)
            write.writestr(entry, read.read(name), zipfile.ZIP_DEFLATED)
    return output.getvalue()


def main(folder: Path) -> None:
    """Build both samples into a folder."""
    build_pdf(SOURCES / "mutual-nda.txt", folder / "mutual-nda.pdf")
    build_docx(SOURCES / "services-agreement.txt", folder / "services-agreement.docx")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE_SAMPLES)
