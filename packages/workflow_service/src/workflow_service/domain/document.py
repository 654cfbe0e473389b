"""A document: what a user uploaded, its text, and places in that text."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Span:
    """A place in a text: characters ``start`` up to, not including, ``end``."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"a span needs 0 <= start <= end, got {self.start!r}, {self.end!r}")


@dataclass(frozen=True, slots=True)
class Document:
    """An uploaded file, without its content."""

    id: UUID
    user_id: str
    filename: str
    media_type: str
    size: int  # bytes
    sha256: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a document: its number, from 1, and where it stands in the text."""

    number: int
    span: Span


@dataclass(frozen=True, slots=True)
class DocumentText:
    """The text of a document and where its pages begin. Formats without pages have one."""

    text: str
    pages: tuple[Page, ...]


MEDIA_TYPES = {
    ".pdf": "application/pdf",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".md": "text/markdown",
    ".txt": "text/plain",
}
"""The formats that can be analysed, by file name ending."""


def told_size(count: int) -> str:
    """Return a number of bytes as people say it: "20 MiB" if that is exact, else "200,000 bytes"."""
    for unit, size in (("MiB", 1024**2), ("KiB", 1024)):
        if count and count % size == 0:
            return f"{count // size:,} {unit}"
    return f"{count:,} bytes"
