"""Documents in PostgreSQL."""

import hashlib
from uuid import uuid4

import pytest

from workflow_service.gateways.postgres.documents import PostgresDocumentStore

pytestmark = pytest.mark.needs("postgres")


def test_a_document_comes_back_byte_for_byte_to_its_owner_only(with_pool):
    """Content and record are kept; another user, or another id, gets None."""
    content = bytes(range(256)) * 1000

    async def scenario(pool):
        store = PostgresDocumentStore(pool.acquire)
        document = await store.save("alice", "contract.pdf", "application/pdf", content)
        assert (document.size, document.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert await store.get("alice", document.id) == document
        assert await store.content("alice", document.id) == content
        for user_id, document_id in (("mallory", document.id), ("alice", uuid4())):
            assert await store.get(user_id, document_id) is None
            assert await store.content(user_id, document_id) is None

    with_pool(scenario)
