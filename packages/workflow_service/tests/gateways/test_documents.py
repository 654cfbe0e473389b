"""Documents in PostgreSQL."""

import hashlib
import threading
from contextlib import asynccontextmanager
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


def test_a_file_is_hashed_neither_on_the_loop_nor_with_a_connection(with_pool, monkeypatch):
    """Hashing a large file stops neither other requests nor those who wait for a connection."""
    seen = []
    lent = 0
    sha256 = hashlib.sha256

    def hash_and_look(content):
        seen.append((threading.current_thread() is threading.main_thread(), lent))
        return sha256(content)

    async def scenario(pool):
        @asynccontextmanager
        async def connect():
            nonlocal lent
            async with pool.acquire() as connection:
                lent += 1
                yield connection
                lent -= 1

        monkeypatch.setattr(hashlib, "sha256", hash_and_look)
        await PostgresDocumentStore(connect).save("alice", "a.txt", "text/plain", b"x")
        assert seen == [(False, 0)]

    with_pool(scenario)


def test_documents_are_listed_newest_first_and_page_by_page(with_pool):
    """Each page goes on after its cursor; other users' documents are neither listed nor a place to go on from."""

    async def scenario(pool):
        store = PostgresDocumentStore(pool.acquire)
        saved = [await store.save("alice", f"{number}.txt", "text/plain", b"x") for number in range(5)]
        foreign = await store.save("mallory", "theirs.txt", "text/plain", b"x")
        saved.reverse()
        assert await store.list_recent("alice", 10) == saved
        assert await store.list_recent("alice", 2) == saved[:2]
        assert await store.list_recent("alice", 2, saved[1].id) == saved[2:4]
        assert await store.list_recent("alice", 2, saved[4].id) == []
        assert await store.list_recent("alice", 2, foreign.id) == []

    with_pool(scenario)
