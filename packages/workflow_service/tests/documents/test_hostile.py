"""Files made to cost too much, and large honest ones: a clear error or a text, within the limits."""

import asyncio
import io
import zipfile
import zlib
from pathlib import Path

import docx
import pytest
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

from workflow_service.domain.document import MEDIA_TYPES, DocumentText
from workflow_service.gateways.document_parser import DocumentParser
from workflow_service.ports import UnreadableDocumentError

PDF, DOCX = MEDIA_TYPES[".pdf"], MEDIA_TYPES[".docx"]
MIB = 1024**2


def parse(parser: DocumentParser, content: bytes, media_type: str) -> DocumentText:
    return asyncio.run(parser.parse(content, media_type))


def word(**parts: bytes) -> bytes:
    """Return a Word document whose parts are replaced: ``document`` is ``word/document.xml``."""
    plain = io.BytesIO()
    docx.Document().save(plain)
    output = io.BytesIO()
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            replaced = parts.get(Path(name).stem if name.startswith("word/") else "")
            target.writestr(name, source.read(name) if replaced is None else replaced)
    return output.getvalue()


def body(text: str, prolog: str = "") -> bytes:
    names = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    return (
        f'<?xml version="1.0"?>{prolog}<w:document {names}><w:body><w:p><w:r><w:t>{text}</w:t></w:r></w:p>'
        "</w:body></w:document>"
    ).encode()


def pdf_with_stream(stream: bytes) -> bytes:
    """Return a PDF of one page whose content is a compressed stream."""
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1<</Type/Font"
        b"/Subtype/Type1/BaseFont/Helvetica>>>>>>>>",
        b"<</Filter/FlateDecode/Length %d>>\nstream\n%s\nendstream" % (len(stream), stream),
    ]
    output, places = bytearray(b"%PDF-1.7\n"), []
    for number, content in enumerate(objects, start=1):
        places.append(len(output))
        output += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = len(output)
    output += b"xref\n0 5\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    return bytes(output + b"trailer<</Size 5/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % table)


def deflated(chunk: bytes, times: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join([*(packer.compress(chunk) for _ in range(times)), packer.flush()])


def test_500_pages_are_read_within_the_limits(parser: DocumentParser) -> None:
    """A long contract is no attack: every page is there, with its place."""
    output = io.BytesIO()
    canvas = Canvas(output)
    for number in range(1, 501):
        for line in range(40):
            canvas.drawString(
                72, 760 - 16 * line, f"{number}.{line} The Supplier shall deliver item {number}-{line}."
            )
        canvas.showPage()
    canvas.save()
    found = parse(parser, output.getvalue(), PDF)
    assert len(found.pages) == 500
    last = found.pages[-1].span
    assert "deliver item 500-39." in found.text[last.start : last.end]


def test_a_small_pdf_that_unpacks_to_gigabytes_is_stopped() -> None:
    """The reading process is confined: it ends within its time and memory, with an error that says so."""
    content = pdf_with_stream(deflated(b" " * MIB, 1024))
    assert len(content) < 3 * MIB
    with pytest.raises(UnreadableDocumentError, match=r"damaged|memory|no text|too much|longer than 5"):
        parse(DocumentParser(timeout=5, memory_bytes=512 * MIB), content, PDF)


def test_entities_that_multiply_are_not_expanded(parser: DocumentParser) -> None:
    """A billion laughs in a Word document's XML: refused or ignored, never laughed."""
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    prolog = f'<!DOCTYPE w:document [<!ENTITY e0 "ha">{entities}]>'
    with pytest.raises(UnreadableDocumentError, match=r"damaged|holds no text"):
        parse(parser, word(document=body("&e9;", prolog)), DOCX)


def test_entities_that_name_a_file_do_not_read_it(parser: DocumentParser, tmp_path: Path) -> None:
    """What lies on the server is not put into a document's text."""
    secret = tmp_path / "secret"
    secret.write_text("the password")
    prolog = f'<!DOCTYPE w:document [<!ENTITY file SYSTEM "{secret.as_uri()}">]>'
    try:
        found = parse(parser, word(document=body("before &file; behind", prolog)), DOCX).text
    except UnreadableDocumentError as refused:
        found = str(refused)
    assert "password" not in found


def test_a_part_that_is_larger_than_it_declares_is_not_unpacked_further(parser: DocumentParser) -> None:
    """An archive that lies about its sizes is damaged; nothing beyond what it declares is held in memory."""
    honest = word(document=body("x" * 50 * MIB))
    declared = (50 * MIB + len(body(""))).to_bytes(4, "little")
    assert honest.count(declared) >= 2  # the local header and the directory
    with pytest.raises(UnreadableDocumentError, match="damaged"):
        parse(parser, honest.replace(declared, (1000).to_bytes(4, "little")), DOCX)


def test_xml_that_is_deep_or_endless_is_an_error(parser: DocumentParser) -> None:
    """Ten thousand elements in one another, and a document that stops in the middle."""
    with pytest.raises(UnreadableDocumentError, match="damaged"):
        parse(parser, word(document=body("<w:r>" * 10_000 + "</w:r>" * 10_000)), DOCX)
    with pytest.raises(UnreadableDocumentError, match="damaged"):
        parse(parser, word(document=body("text")[:-20]), DOCX)


def test_pictures_alone_are_no_text(parser: DocumentParser) -> None:
    """A scan in a Word document is told as one in a PDF is."""
    with pytest.raises(UnreadableDocumentError, match="holds no text"):
        parse(parser, word(document=body("<w:drawing/>")), DOCX)


def test_a_pdf_that_anyone_may_open_is_read_though_it_is_encrypted(parser: DocumentParser) -> None:
    """Only an owner's password: readers show it, so it is read."""
    output = io.BytesIO()
    canvas = Canvas(output, encrypt=StandardEncryption("", ownerPassword="owner", canCopy=0))
    canvas.drawString(72, 720, "for everyone")
    canvas.save()
    assert parse(parser, output.getvalue(), PDF).text == "for everyone"


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9, 0.99])
def test_a_sample_that_is_cut_off_is_read_or_refused(parser: DocumentParser, samples: Path, cut: float) -> None:
    """Wherever an upload broke off: an error with a reason, or the text that is still there."""
    for path in sorted(samples.iterdir()):
        content = path.read_bytes()
        try:
            found = parse(parser, content[: int(len(content) * cut)], MEDIA_TYPES[path.suffix])
        except UnreadableDocumentError as refused:
            said = str(refused)
        else:
            said = "text" if found.text.strip() else "nothing"
        assert any(word in said for word in ("damaged", "incomplete", "text"))
