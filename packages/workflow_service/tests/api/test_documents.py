"""Upload documents and take samples over HTTP."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from workflow_service.api.app import UPLOADS_AT_ONCE
from workflow_service.domain.document import Document

pytestmark = pytest.mark.needs("postgres")

DOCUMENTS = "/api/v1/documents"
MAX_UPLOAD = 200_000  # bytes, as the server of these tests is set


def test_an_upload_can_be_found_where_the_answer_says(client, server, bob):
    """201, Location and record agree; the bytes are the user's, and nobody else's."""
    content = b"%PDF-1.7 \0\xff" * 1000
    response = client.post(DOCUMENTS, files={"file": ("../My contract.pdf", content, "application/pdf")})
    assert response.status_code == 201
    record = response.json()
    assert (record["filename"], record["media_type"], record["size"]) == (
        "My contract.pdf",
        "application/pdf",
        len(content),
    )
    assert client.get(response.headers["Location"]).json() == record
    assert bob.get(response.headers["Location"]).status_code == 404
    found = server.call(lambda services: services.documents.content("alice", record["document_id"]))
    assert found == content


@pytest.mark.parametrize(
    ("name", "content", "status", "kind"),
    [
        ("a.exe", b"MZ", 415, "unsupported-format"),
        ("a.txt", b"", 422, "invalid-input"),
        ("a.txt", b"%PDF-1.7", 415, "unsupported-format"),
        ("a.docx", b"PK\x03\x04", 422, "unreadable-document"),
        ("a.txt", b"x" * (MAX_UPLOAD + 1), 413, "too-large"),
        ("a.txt", b"x" * (MAX_UPLOAD * 3), 413, "too-large"),
    ],
)
def test_files_that_cannot_be_kept_are_refused(client, name, content, status, kind):
    """415 for the format, 413 for the size to the byte, 422 for nothing: each a problem of its own type."""
    response = client.post(DOCUMENTS, files={"file": (name, content)})
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["type"]) == (status, f"urn:problem-type:workflow-service:{kind}")
    assert "workflow" not in problem["title"]


def test_a_file_of_the_largest_size_is_kept(client):
    """The limit itself is allowed."""
    response = client.post(DOCUMENTS, files={"file": ("a.txt", b"x" * MAX_UPLOAD)})
    assert (response.status_code, response.json()["size"]) == (201, MAX_UPLOAD)


def test_several_files_at_once_are_refused(client):
    """None of them is kept: which one was meant is unknown."""
    files = [("file", ("a.txt", b"first")), ("file", ("b.txt", b"second"))]
    response = client.post(DOCUMENTS, files=files)
    assert (response.status_code, response.json()["type"][-15:]) == (422, "invalid-request")
    assert "2" in response.json()["errors"][0]["message"]


def test_an_upload_of_unknown_length_is_stopped_while_it_comes(client):
    """A body that announces no length is counted, and refused when it passes the limit."""
    sent = 0

    def endless():
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
        for _ in range(400):
            sent += 10_000
            yield b"x" * 10_000
        yield b"\r\n--b--\r\n"

    response = client.post(
        DOCUMENTS, content=endless(), headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert (response.status_code, response.headers["Content-Type"]) == (413, "application/problem+json")


@pytest.mark.parametrize(
    "content", [b"", b"no boundary", b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\nx\r\n--b--\r\n']
)
def test_a_form_without_the_file_is_the_clients_fault(client, content):
    """A body that is no form, or a form without `file`, is 4xx and a problem document."""
    response = client.post(DOCUMENTS, content=content, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert response.status_code in (400, 422)
    assert response.headers["Content-Type"] == "application/problem+json"


class CountingDocuments:
    """A store that counts how many files it is given at once."""

    def __init__(self):
        self.held = self.most = 0

    async def save(self, user_id, filename, media_type, content):
        self.held += 1
        self.most = max(self.most, self.held)
        await asyncio.sleep(0.02)  # room for the others to come in
        self.held -= 1
        return Document(uuid4(), user_id, filename, media_type, len(content), "", datetime.now(UTC))


def test_uploads_at_once_wait_for_their_turn(serve):
    """However many come at once, few are in memory, and each is kept."""
    documents = CountingDocuments()
    with serve(documents=documents).client() as client, ThreadPoolExecutor(20) as threads:
        answers = threads.map(lambda _: client.post(DOCUMENTS, files={"file": ("a.txt", b"x")}), range(60))
        assert {answer.status_code for answer in answers} == {201}
    assert documents.most <= UPLOADS_AT_ONCE


def test_a_sample_becomes_the_users_document(client, bob):
    """The list names it; taking it makes a document like any other."""
    [sample] = client.get("/api/v1/samples").json()["samples"]
    assert sample == {"name": "mutual nda.md", "media_type": "text/markdown", "size": 5}
    response = client.post("/api/v1/samples/mutual%20nda.md/documents")
    assert response.status_code == 201
    assert response.json()["filename"] == "mutual nda.md"
    assert client.get(response.headers["Location"]).status_code == 200
    assert bob.get(response.headers["Location"]).status_code == 404


@pytest.mark.parametrize("name", ["gone.md", "..%2Fsecret.txt", "%2e%2e"])
def test_a_sample_that_is_not_listed_is_not_there(client, samples, name):
    """No name leads out of the folder."""
    (samples.parent / "secret.txt").write_text("secret")
    assert client.post(f"/api/v1/samples/{name}/documents").status_code in (404, 405)


def test_an_unknown_document_is_not_there(client):
    """404 as a problem document."""
    response = client.get(f"{DOCUMENTS}/{uuid4()}")
    assert (response.status_code, response.headers["Content-Type"]) == (404, "application/problem+json")


def test_documents_are_listed_for_their_owner_page_by_page(client, bob):
    """A person finds what was uploaded before, newest first, and nothing of anybody else's."""
    names = [f"{number}.txt" for number in range(3)]
    for name in names:
        assert client.post(DOCUMENTS, files={"file": (name, b"text")}).status_code == 201
    first = client.get(DOCUMENTS, params={"limit": 2}).json()
    assert [document["filename"] for document in first["documents"]] == ["2.txt", "1.txt"]
    second = client.get(DOCUMENTS, params={"limit": 2, "before": first["next"]}).json()
    assert [document["filename"] for document in second["documents"]] == ["0.txt"]
    assert second["next"] is None
    assert bob.get(DOCUMENTS).json() == {"documents": [], "next": None, "max_bytes": MAX_UPLOAD}
    assert client.get(DOCUMENTS, params={"limit": 0}).status_code == 422
