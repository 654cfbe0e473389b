"""The first look at a file, before the reader of its format opens it."""

from workflow_service.domain.file_format import mismatch
from workflow_service.ports import UnreadableDocumentError


def check_media_type(content: bytes, media_type: str) -> None:
    """Raise UnreadableDocumentError unless ``content`` is what ``media_type`` says, as far as bytes can tell."""
    found = mismatch(content, media_type)
    if found is not None:
        raise UnreadableDocumentError(found.reason)
