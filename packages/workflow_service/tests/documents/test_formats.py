"""What each format gives as text, and what is said when it gives none."""

import asyncio
import io
import zipfile
from collections.abc import Callable

import docx
import pytest
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

from workflow_service.domain.document import MEDIA_TYPES, DocumentText, Span
from workflow_service.gateways.document_parser import DocumentParser
from workflow_service.ports import UnreadableDocumentError

PDF, DOCX, MARKDOWN, PLAIN = MEDIA_TYPES.values()


def parse(parser: DocumentParser, content: bytes, media_type: str) -> DocumentText:
    return asyncio.run(parser.parse(content, media_type))


def pdf(*pages: list[str], encrypt: StandardEncryption | None = None) -> bytes:
    """Return a PDF with these lines on its pages."""
    output = io.BytesIO()
    canvas = Canvas(output, encrypt=encrypt)
    for lines in pages:
        for number, line in enumerate(lines):
            canvas.drawString(72, 760 - 16 * number, line)
        canvas.showPage()
    canvas.save()
    return output.getvalue()


def word(fill: Callable[[docx.document.Document], object]) -> bytes:
    """Return a Word document that ``fill`` has written into."""
    document = docx.Document()
    fill(document)
    output = io.BytesIO()
    document.save(output)
    return output.getvalue()


def test_pages_of_a_pdf_cover_its_text(parser: DocumentParser) -> None:
    """Each page's span holds that page's text, and a sentence goes over the page break in one paragraph."""
    found = parse(parser, pdf(["The first page", "ends in the middle"], ["of a sentence."]), PDF)
    assert found.text == "The first page\nends in the middle\nof a sentence."
    assert [found.text[page.span.start : page.span.end] for page in found.pages] == [
        "The first page\nends in the middle",
        "of a sentence.",
    ]
    assert [page.number for page in found.pages] == [1, 2]


def test_lines_on_every_page_of_a_pdf_are_no_text(parser: DocumentParser) -> None:
    """A header and «Page n of m» go; a line that stands on some pages only stays."""
    pages = [
        ["Agreement, confidential", "Only here" if n == 2 else f"Text {n}x", f"Page {n} of 3"] for n in (1, 2, 3)
    ]
    found = parse(parser, pdf(*pages), PDF)
    assert found.text == "Text 1x\nOnly here\nText 3x"


def test_rows_that_differ_in_their_numbers_are_text(parser: DocumentParser) -> None:
    """A price list over several pages has such lines at every edge: none of them may be lost."""
    pages = [[f"Item {n}: USD {n * 100}", f"Item {n + 10}: USD 5"] for n in (1, 2, 3)]
    found = parse(parser, pdf(*pages), PDF)
    assert found.text.count("Item") == 6


def test_a_header_on_the_only_page_stays(parser: DocumentParser) -> None:
    """With one page nothing can be known to repeat."""
    assert parse(parser, pdf(["Agreement", "Text"]), PDF).text == "Agreement\nText"


def test_word_keeps_the_order_of_paragraphs_and_tables(parser: DocumentParser) -> None:
    """A table stands where it stands in the document, a row a line."""

    def fill(document: docx.document.Document) -> None:
        document.add_paragraph("Before")
        table = document.add_table(2, 2)
        for cell, text in zip(table._cells, ["Item", "Fee", "Support", "USD 5"], strict=True):
            cell.text = text
        document.add_paragraph("Behind")

    assert parse(parser, word(fill), DOCX).text == "Before\n\nItem | Fee\nSupport | USD 5\n\nBehind"


def test_word_headings_without_a_number_are_marked(parser: DocumentParser) -> None:
    """What Word shows as a heading is known as one in the text."""
    assert parse(parser, word(lambda d: d.add_heading("Background", 2)), DOCX).text == "## Background"


def test_word_lists_carry_their_numbers_and_bullets(parser: DocumentParser) -> None:
    """Numbers that come from a paragraph's style are in the text as Word shows them."""

    def fill(document: docx.document.Document) -> None:
        for text in ("one", "two"):
            document.add_paragraph(text, style="List Number")
        document.add_paragraph("dot", style="List Bullet")

    assert parse(parser, word(fill), DOCX).text == "1. one\n\n2. two\n\n- dot"


def test_word_reads_insertions_and_content_controls_but_no_deletions(parser: DocumentParser) -> None:
    """Tracked changes read as accepted, and text in content controls is not lost."""
    names = nsdecls("w")
    changed = (
        f"<w:p {names}><w:r><w:t>liable for </w:t></w:r><w:del><w:r><w:delText>nothing</w:delText></w:r></w:del>"
        "<w:ins><w:r><w:t>everything</w:t></w:r></w:ins></w:p>"
    )
    control = f"<w:sdt {names}><w:sdtContent><w:p><w:r><w:t>Acme Inc.</w:t></w:r></w:p></w:sdtContent></w:sdt>"

    def fill(document: docx.document.Document) -> None:
        for position, xml in enumerate((changed, control)):
            document.element.body.insert(position, parse_xml(xml))

    assert parse(parser, word(fill), DOCX).text == "liable for everything\n\nAcme Inc."


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("# Größe\r\n\r\n**5 €**".encode(), "# Größe\n\n**5 €**"),
        ("\ufeffmarked".encode(), "marked"),
        ("wide 😀".encode("utf-16"), "wide 😀"),
        ("big end".encode("utf-16-be").join([b"\xfe\xff", b""]), "big end"),
        (b"old mac\rlines\x0cnew page", "old mac\nlines\nnew page"),
    ],
)
@pytest.mark.parametrize("media_type", [MARKDOWN, PLAIN])
def test_text_is_kept_as_it_is_but_for_its_line_ends(
    parser: DocumentParser, content: bytes, text: str, media_type: str
) -> None:
    """UTF-8, with a mark or without, and UTF-16 with a mark are read; line ends become one kind."""
    found = parse(parser, content, media_type)
    assert found.text == text
    assert [page.span for page in found.pages] == [Span(0, len(text))]


def scan() -> bytes:
    output = io.BytesIO()
    canvas = Canvas(output)
    canvas.rect(50, 50, 200, 200, fill=1)
    canvas.save()
    return output.getvalue()


def archive(**parts: bytes) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(name.replace("__", "/"), content)
    return output.getvalue()


def bomb() -> bytes:
    output = io.BytesIO()
    with (
        zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open("word/document.xml", "w", force_zip64=True) as part,
    ):
        for _ in range(201):
            part.write(bytes(1024 * 1024))
    return output.getvalue()


WORD = word(lambda document: document.add_paragraph("text " * 500))
ENCRYPTED_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + "EncryptedPackage".encode("utf-16-le")


@pytest.mark.parametrize(
    ("content", "media_type", "reason"),
    [
        (b"", PDF, "empty"),
        (b" \n\t", PLAIN, "empty"),
        ("\ufeff \n".encode(), PLAIN, "white space"),
        (pdf(["secret"], encrypt=StandardEncryption("password")), PDF, "encrypted"),
        (scan(), PDF, "no text layer"),
        (pdf(["text"])[:300], PDF, "damaged or incomplete"),
        (WORD[:-200], DOCX, "incomplete or damaged"),
        (archive(word__document=b"<", **{"word__document.xml": b"<"}), DOCX, "damaged"),
        (word(lambda document: None), DOCX, "holds no text"),
        (bomb(), DOCX, "unpacks to more than 200 MiB"),
        (pdf(["text"]), DOCX, "sent as a Word document .*content is a PDF"),
        (WORD, PDF, "sent as a PDF.*content is a Word document"),
        (pdf(["text"]), PLAIN, "sent as plain text.*content is a PDF"),
        (archive(**{"xl__workbook.xml": b"<x/>"}), DOCX, "content is an Excel workbook"),
        (ENCRYPTED_OFFICE, DOCX, "with a password"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), DOCX, "Word 97-2003"),
        (b"\x89PNG\r\n\x1a\n", PDF, "an image"),
        (b"{\\rtf1 text}", PLAIN, "RTF"),
        (b"plain words", PDF, "damaged or incomplete"),
        (b"plain words", DOCX, "incomplete or damaged"),
        (b"caf\xe9", PLAIN, "not UTF-8 .*0xe9 at offset 3.*save it as UTF-8"),
        (b"\xff\xfea", PLAIN, "not UTF-16"),
        (b"a\0b", MARKDOWN, "binary"),
        (b"a", "image/tiff", "'image/tiff' cannot be read"),
    ],
)
def test_what_cannot_be_read_says_why(
    parser: DocumentParser, content: bytes, media_type: str, reason: str
) -> None:
    """Each way of being unreadable has its own message, and no reader's crash is among them."""
    with pytest.raises(UnreadableDocumentError, match=reason):
        parse(parser, content, media_type)


def test_too_many_pages_or_characters_are_refused() -> None:
    """A document over the limits is not read in part."""
    small = DocumentParser(timeout=30, memory_bytes=1024**3, max_pages=2, max_chars=100)
    with pytest.raises(UnreadableDocumentError, match="has 3 pages; at most 2"):
        parse(small, pdf(["a"], ["b"], ["c"]), PDF)
    for content, media_type in ((b"x" * 101, PLAIN), (pdf(["x" * 80], ["x" * 80]), PDF), (WORD, DOCX)):
        with pytest.raises(UnreadableDocumentError, match="more than 100 characters"):
            parse(small, content, media_type)
