"""Uploads: name, format, size; samples by name."""

import asyncio
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_service.ports import (
    EmptyFileError,
    TooLargeError,
    UnreadableDocumentError,
    UnsupportedMediaTypeError,
)
from workflow_service.usecases.documents import display_name, media_type_of, upload_document
from workflow_service.usecases.samples import list_samples, read_sample

DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


@pytest.mark.parametrize(
    ("given_name", "shown"),
    [
        ("contract.pdf", "contract.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\eve\\a.docx", "a.docx"),
        ("a\r\nb\0.txt", "ab.txt"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("  two   words .md", "two words .md"),
        ("", "document"),
        ("/", "document"),
        (" .txt", "document.txt"),
        (".PDF", "document.PDF"),
        (".profile", ".profile"),
        ("x" * 300 + ".pdf", "x" * 196 + ".pdf"),
        ("Vertra\u0308ge.pdf", "Vertr\u00e4ge.pdf"),
    ],
)
def test_a_name_is_made_fit_to_show(given_name, shown):
    """Folders, control characters and direction overrides go; the ending stays."""
    assert display_name(given_name) == shown


@given(st.text(alphabet=st.characters(), max_size=400))
def test_every_name_becomes_one_visible_line(name):
    """No name is empty, long, a path, or holds what PostgreSQL or a header cannot carry."""
    shown = display_name(name)
    assert 0 < len(shown) <= 200
    assert not set(shown) & set("/\\\0\r\n")
    assert not any(unicodedata.category(character).startswith("C") for character in shown)


@pytest.mark.parametrize(
    ("name", "content_type", "media_type"),
    [
        ("a.pdf", None, "application/pdf"),
        ("a.DOCX", "application/octet-stream", DOCX),
        ("a", "text/markdown; charset=utf-8", "text/markdown"),
        ("a.log", "Text/Plain", "text/plain"),
    ],
)
def test_the_format_follows_from_the_ending_else_from_the_declared_type(name, content_type, media_type):
    """The ending decides; browsers that know no Markdown send application/octet-stream."""
    assert media_type_of(name, content_type) == media_type


@pytest.mark.parametrize(("name", "content_type"), [("a.exe", "application/x-dosexec"), ("a", None), ("pdf", "")])
def test_an_unknown_format_is_refused(name, content_type):
    """The error names the endings that can be read."""
    with pytest.raises(UnsupportedMediaTypeError, match=r"\.pdf, \.docx"):
        media_type_of(name, content_type)


@pytest.mark.parametrize(("content", "error"), [(b"", EmptyFileError), (b"123456", TooLargeError)])
def test_empty_and_too_large_files_are_refused(content, error):
    """Nothing is written for them."""
    with pytest.raises(error):
        asyncio.run(upload_document("alice", "a.txt", None, content, documents=None, max_bytes=5))


PDF = b"%PDF-1.7\n"
ZIP = b"PK\x03\x04" + bytes(26) + b"%s" + b"PK\x05\x06" + bytes(18)
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
WEBP = b"RIFF\0\0\0\0WEBPVP8 "


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", PDF, "sent as plain text, but its content is a PDF"),
        ("a.pdf", ZIP % b"word/document.xml", "content is a Word document"),
        ("a.docx", ZIP % b"xl/workbook.xml", "content is an Excel workbook"),
        ("a.docx", ZIP % b"photos/a.jpg", "content is a ZIP archive without a document"),
        ("a.docx", ZIP % b"mimetypeapplication/vnd.oasis.opendocument.text", "an OpenDocument text"),
        ("a.docx", OLE + bytes(600), r"a Word 97-2003 document \(.doc\), which must be saved"),
        ("a.md", b"\xef\xbb\xbf \n<!DOCTYPE HTML><p>Agreement", "an HTML page"),
        ("a.txt", b"<html>", "an HTML page"),
        ("a.txt", b"MZ\x90\0\x03\0", "a program"),
        ("a.pdf", b"\x7fELF\x02", "a program"),
        ("a.pdf", b"\x89PNG\r\n", "an image"),
        ("a.pdf", WEBP, "an image or a video"),
        ("a.txt", b"\x1f\x8b\x08", "a compressed archive; unpack it"),
        ("a.txt", b"{\\rtf1 text}", "an RTF document"),
        ("a.pdf", b"%!PS-Adobe-3.0", "a PostScript document"),
        ("a.txt", b"words\0\1\2", "binary"),
    ],
)
def test_content_of_another_format_is_refused_whatever_its_name(name, content, said):
    """The message says what it is sent as, what it is, and what to do."""
    with pytest.raises(UnsupportedMediaTypeError, match=rf"'{name}': .*{said}"):
        asyncio.run(upload_document("alice", name, None, content, documents=None, max_bytes=1000))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.pdf", b"plain words", "damaged or incomplete: it has no header"),
        ("a.docx", b"plain words", "incomplete or damaged: it is no whole archive"),
        ("a.docx", (ZIP % b"word/document.xml")[:50], "incomplete or damaged"),
        ("a.docx", OLE + bytes(600) + "EncryptedPackage".encode("utf-16-le"), "with a password; remove"),
        ("a.txt", b" \n\t", "empty"),
    ],
)
def test_content_that_cannot_be_read_is_refused_at_once(name, content, said):
    """What its bytes tell needs no run to find out."""
    with pytest.raises(UnreadableDocumentError, match=said):
        asyncio.run(upload_document("alice", name, None, content, documents=None, max_bytes=1000))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pdf", b"junk before it\n" + PDF),
        ("a.docx", ZIP % b"word/document.xml" + b"comment"),
        ("a.txt", b"MZ is an abbreviation."),
        ("a.txt", "wide".encode("utf-16")),
        ("a.md", b"Text with <html> in it"),
        ("a.txt", b"caf\xe9"),
    ],
)
def test_content_that_may_be_what_it_says_is_kept(name, content):
    """Whether it can be read in full is for its reader to find out."""

    class Store:
        async def save(self, *record):
            return record

    kept = asyncio.run(upload_document("alice", name, None, content, documents=Store(), max_bytes=1000))
    assert kept[1] == name


def test_samples_are_read_by_name_only(tmp_path):
    """A sample is a readable file in the folder; a path that leads out of it is no name."""
    folder = tmp_path / "samples"
    folder.mkdir()
    (folder / "b.md").write_text("B")
    (folder / "a.pdf").write_bytes(b"AA")
    (folder / "notes.json").write_text("{}")
    (tmp_path / "secret.txt").write_text("secret")

    async def scenario():
        assert [(sample.name, sample.size) for sample in await list_samples(folder)] == [("a.pdf", 2), ("b.md", 1)]
        assert await read_sample(folder, "b.md") == b"B"
        for name in ("../secret.txt", "notes.json", "", ".", "c.md"):
            assert await read_sample(folder, name) is None
        assert await list_samples(tmp_path / "missing") == []

    asyncio.run(scenario())
