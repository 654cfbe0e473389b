"""Keep an uploaded file: how large, which format, what name."""

import unicodedata
from pathlib import PurePosixPath

from workflow_service.domain.document import MEDIA_TYPES, Document, told_size
from workflow_service.domain.file_format import mismatch
from workflow_service.ports import (
    DocumentStore,
    EmptyFileError,
    TooLargeError,
    UnreadableDocumentError,
    UnsupportedMediaTypeError,
)

_MAX_NAME = 200  # characters


async def upload_document(
    user_id: str,
    filename: str,
    content_type: str | None,
    content: bytes,
    *,
    documents: DocumentStore,
    max_bytes: int,
) -> Document:
    """Keep a file; its format follows from the name's ending, else from ``content_type``, and its bytes agree.

    Raises:
        UnsupportedMediaTypeError: Neither the ending nor the content type names a format that can be read, or the
            content is of another format.
        UnreadableDocumentError: The content is damaged, as far as a look at its bytes tells, or has a password.
        TooLargeError: The file has more than ``max_bytes`` bytes.
        EmptyFileError: The file is empty.
    """
    name = display_name(filename)
    media_type = media_type_of(name, content_type)
    if len(content) > max_bytes:
        raise TooLargeError(f"{name!r} has {len(content):,} bytes; a file may have {told_size(max_bytes)}")
    if not content:
        raise EmptyFileError(f"{name!r} has no bytes")
    found = mismatch(content, media_type)
    if found is not None:
        refused = UnsupportedMediaTypeError if found.is_other_format else UnreadableDocumentError
        raise refused(f"{name!r}: {found.reason}")
    return await documents.save(user_id, name, media_type, content)


def media_type_of(name: str, content_type: str | None) -> str:
    """Return the format of a file. Raises UnsupportedMediaTypeError as upload_document does."""
    by_ending = MEDIA_TYPES.get(PurePosixPath(name).suffix.lower())
    if by_ending is not None:
        return by_ending
    declared = (content_type or "").partition(";")[0].strip().lower()
    if declared in MEDIA_TYPES.values():
        return declared
    known = ", ".join(MEDIA_TYPES)
    raise UnsupportedMediaTypeError(f"{name!r} is no format that can be read; known endings: {known}")


def display_name(filename: str) -> str:
    """Return the last part of a path as one line of text without invisible characters; never used as a path."""
    last = unicodedata.normalize("NFC", filename).replace("\\", "/").rstrip("/").rpartition("/")[2]
    # Categories C*: control characters, direction overrides (they can make exe.pdf of fdp.exe), lone surrogates.
    visible = "".join(character for character in last if not unicodedata.category(character).startswith("C"))
    name = " ".join(visible.split())
    if len(name) > _MAX_NAME:
        ending = PurePosixPath(name).suffix[:20]
        name = name[: _MAX_NAME - len(ending)] + ending
    # A name that is an ending alone says how to read the file, and nothing to whoever looks for it.
    return f"document{name}" if not name or name.lower() in MEDIA_TYPES else name
