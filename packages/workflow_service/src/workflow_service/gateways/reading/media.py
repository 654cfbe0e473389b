"""What a file really is, by its first bytes, against what its sender says it is."""

import io
import zipfile

from workflow_service.domain.document import MEDIA_TYPES
from workflow_service.ports import UnreadableDocumentError

PDF = MEDIA_TYPES[".pdf"]
DOCX = MEDIA_TYPES[".docx"]
MARKDOWN = MEDIA_TYPES[".md"]
PLAIN = MEDIA_TYPES[".txt"]

_NAMES = {PDF: "a PDF", DOCX: "a Word document (.docx)", MARKDOWN: "Markdown", PLAIN: "plain text"}
_PDF_HEADER_WITHIN = 1024  # bytes; readers accept junk before the header up to here (ISO 32000-1, annex H.3.4.1)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def check_media_type(content: bytes, media_type: str) -> None:
    """Raise UnreadableDocumentError unless ``content`` is what ``media_type`` says, as far as bytes can tell."""
    if media_type not in _NAMES:
        known = ", ".join(MEDIA_TYPES)
        raise UnreadableDocumentError(f"files of type {media_type!r} cannot be read; upload one of {known}")
    if not content.strip():
        raise UnreadableDocumentError("the file is empty; upload a file that holds text")
    found = _describe(content)
    if found is None or found == _NAMES[media_type]:
        return
    raise UnreadableDocumentError(
        f"the file is sent as {_NAMES[media_type]}, but its content is {found}; send it under its own type"
    )


def _describe(content: bytes) -> str | None:
    """Name the format of ``content``; None where the bytes do not tell it, as with text and damaged files."""
    if b"%PDF-" in content[:_PDF_HEADER_WITHIN]:
        return _NAMES[PDF]
    if content.startswith(_OLE):
        if "EncryptedPackage".encode("utf-16-le") in content:
            return "an Office document with a password; remove the password first"
        return "a Word 97-2003 document (.doc), which must be saved as .docx"
    if content.startswith(b"PK\x03\x04"):
        return _describe_archive(content)
    if content.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\x00", b"MM\x00*")):
        return "an image; text in images is not read"
    if content.startswith(b"{\\rtf"):
        return "an RTF document, which must be saved as .docx"
    return None


def _describe_archive(content: bytes) -> str | None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError):
        return None  # damaged: the reader of the declared format has the better message
    return _NAMES[DOCX] if "word/document.xml" in names else "a ZIP archive without a Word document in it"
