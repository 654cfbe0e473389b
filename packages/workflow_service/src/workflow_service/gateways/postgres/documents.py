"""Users' files, kept in a table."""

import asyncio
import hashlib
from collections.abc import Collection, Sequence
from uuid import UUID

import asyncpg

from workflow_service.domain.document import Document
from workflow_service.gateways.postgres.connection import Connect, open_session

_SAVE = """
INSERT INTO workflow.documents (user_id, filename, media_type, size, sha256, content)
VALUES ($1, $2, $3, $4, $5, $6)
RETURNING id, user_id, filename, media_type, size, sha256, created_at
"""

_GET = """
SELECT id, user_id, filename, media_type, size, sha256, created_at
FROM workflow.documents WHERE id = $1 AND user_id = $2
"""

_WHICH = "SELECT id FROM workflow.documents WHERE id = ANY ($1) AND user_id = $2"

_LIST_RECENT = """
SELECT id, user_id, filename, media_type, size, sha256, created_at FROM workflow.documents
WHERE user_id = $1
  AND ($3::uuid IS NULL
       OR (created_at, id) < (SELECT created_at, id FROM workflow.documents WHERE id = $3 AND user_id = $1))
ORDER BY created_at DESC, id DESC
LIMIT $2
"""

_CONTENT = "SELECT content FROM workflow.documents WHERE id = $1 AND user_id = $2"


class PostgresDocumentStore:
    """Fits the DocumentStore port."""

    def __init__(self, connect: Connect) -> None:
        """Keep documents in the database that ``connect`` lends connections to."""
        self._connect = connect

    async def save(self, user_id: str, filename: str, media_type: str, content: bytes) -> Document:
        """Keep a file and return its record."""
        digest = await asyncio.to_thread(_sha256, content)
        async with open_session(self._connect, user_id) as connection:
            row = await connection.fetchrow(_SAVE, user_id, filename, media_type, len(content), digest, content)
        assert row is not None  # an INSERT without ON CONFLICT returns its row
        return _document(row)

    async def get(self, user_id: str, document_id: UUID) -> Document | None:
        """Return the record of the user's document; None if there is none or it is another user's."""
        async with open_session(self._connect, user_id) as connection:
            row = await connection.fetchrow(_GET, document_id, user_id)
        return None if row is None else _document(row)

    async def which(self, user_id: str, document_ids: Collection[UUID]) -> Collection[UUID]:
        """Return those of the ids that are documents of the user."""
        async with open_session(self._connect, user_id) as connection:
            rows = await connection.fetch(_WHICH, list(document_ids), user_id)
        return {row["id"] for row in rows}

    async def list_recent(self, user_id: str, limit: int, before: UUID | None = None) -> Sequence[Document]:
        """Return the user's documents, newest first, from the one after ``before`` (a document id: the cursor)."""
        async with open_session(self._connect, user_id) as connection:
            rows = await connection.fetch(_LIST_RECENT, user_id, limit, before)
        return [_document(row) for row in rows]

    async def content(self, user_id: str, document_id: UUID) -> bytes | None:
        """Return the file's bytes; None as get does."""
        async with open_session(self._connect, user_id) as connection:
            content: bytes | None = await connection.fetchval(_CONTENT, document_id, user_id)
        return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _document(row: asyncpg.Record) -> Document:
    return Document(**row)
