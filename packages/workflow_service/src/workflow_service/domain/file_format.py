"""What a file really is, by its bytes, against what its sender says it is.

Cheap enough for every upload: signatures and searches for bytes, nothing is unpacked.
"""

from dataclasses import dataclass

from workflow_service.domain.document import MEDIA_TYPES

PDF = MEDIA_TYPES[".pdf"]
DOCX = MEDIA_TYPES[".docx"]
MARKDOWN = MEDIA_TYPES[".md"]
PLAIN = MEDIA_TYPES[".txt"]

_NAMES = {PDF: "a PDF", DOCX: "a Word document (.docx)", MARKDOWN: "Markdown", PLAIN: "plain text"}
_ENDINGS = ", ".join(MEDIA_TYPES)
_PDF_HEADER_WITHIN = 1024  # bytes; readers accept junk before the header up to here (ISO 32000-1, annex H.3.4.1)
_ZIP_END_WITHIN = 22 + 65_535  # bytes: the record that ends an archive, and the longest comment behind it
_TEXT_LOOKED_AT = 64 * 1024  # bytes in which a binary file shows a NUL
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"

_IMAGE = "an image; text in images is not read"
_PROGRAM = "a program"
_ARCHIVE = "a compressed archive; unpack it and send the documents in it"
_SIGNATURES = (
    (b"\x89PNG", _IMAGE),
    (b"\xff\xd8\xff", _IMAGE),
    (b"GIF8", _IMAGE),
    (b"II*\x00", _IMAGE),
    (b"MM\x00*", _IMAGE),
    (b"\x7fELF", _PROGRAM),
    (b"\xca\xfe\xba\xbe", _PROGRAM),
    (b"\xcf\xfa\xed\xfe", _PROGRAM),
    (b"\xce\xfa\xed\xfe", _PROGRAM),
    (b"\x1f\x8b", _ARCHIVE),
    (b"7z\xbc\xaf\x27\x1c", _ARCHIVE),
    (b"Rar!\x1a\x07", _ARCHIVE),
    (b"{\\rtf", "an RTF document, which must be saved as .docx"),
    (b"%!PS", "a PostScript document, which must be saved as .pdf"),
)
_OFFICE_PARTS = (
    (b"word/document.xml", _NAMES[DOCX]),
    (b"xl/workbook.xml", "an Excel workbook"),
    (b"ppt/presentation.xml", "a PowerPoint presentation"),
    (b"application/vnd.oasis.opendocument.text", "an OpenDocument text, which must be saved as .docx"),
)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why a file is not what it is said to be: another kind of file, or a damaged one."""

    reason: str
    is_other_format: bool


def mismatch(content: bytes, media_type: str) -> Mismatch | None:
    """Return why ``content`` cannot be of ``media_type``; None if nothing in its bytes speaks against it."""
    if media_type not in _NAMES:
        return Mismatch(f"files of type {media_type!r} cannot be read; upload one of {_ENDINGS}", True)
    if not content.strip():
        return Mismatch("the file is empty; upload a file that holds text", False)
    if content.startswith(_OLE) and "EncryptedPackage".encode("utf-16-le") in content:
        return Mismatch("the file is an Office document with a password; remove the password first", False)
    found = _describe(content)
    if found is None:
        return _damage(content, media_type)
    if found == _NAMES[media_type]:
        return None
    sent_as = f"the file is sent as {_NAMES[media_type]}, but its content is {found}"
    what_to_do = "send it under its own type" if found in _NAMES.values() else f"upload one of {_ENDINGS}"
    return Mismatch(f"{sent_as}; {what_to_do}", True)


def _describe(content: bytes) -> str | None:
    """Name the format of ``content``; None where the bytes do not tell it, as with text and damaged files."""
    if b"%PDF-" in content[:_PDF_HEADER_WITHIN]:
        return _NAMES[PDF]
    if content.startswith(_OLE):
        return "a Word 97-2003 document (.doc), which must be saved as .docx"
    if content.startswith(b"PK\x03\x04"):
        if b"PK\x05\x06" not in content[-_ZIP_END_WITHIN:]:
            return None  # cut off
        return next((name for part, name in _OFFICE_PARTS if part in content), "a ZIP archive without a document")
    if content.startswith(b"MZ") and b"\0" in content[:64]:
        return _PROGRAM
    if content[4:8] == b"ftyp" or (content.startswith(b"RIFF") and content[8:12] == b"WEBP"):
        return "an image or a video; text in them is not read"
    for signature, name in _SIGNATURES:
        if content.startswith(signature):
            return name
    if content[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page, which must be saved as .pdf or as text"
    return None


def _damage(content: bytes, media_type: str) -> Mismatch | None:
    """Return what a file lacks whose bytes name no format."""
    if media_type == PDF:
        return Mismatch("the PDF is damaged or incomplete: it has no header; export it again", False)
    if media_type == DOCX:
        return Mismatch("the Word document is incomplete or damaged: it is no whole archive; save it again", False)
    if b"\0" in content[:_TEXT_LOOKED_AT] and not content.startswith(_UTF16_MARKS):
        return Mismatch("the file is sent as text, but its content is binary (it holds NUL bytes)", True)
    return None
