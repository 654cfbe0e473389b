"""What a refusal says to somebody with curl: what was sent, what is wrong, what to send."""

from uuid import uuid4

import pytest

from workflow_service.domain.document import told_size

pytestmark = pytest.mark.needs("postgres")

EXECUTE, DOCUMENTS = "/api/v1/workflows/execute", "/api/v1/documents"
FORM = "application/x-www-form-urlencoded"


def detail_of(response, status):
    assert (response.status_code, response.headers["Content-Type"]) == (status, "application/problem+json")
    return response.json()["detail"]


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/nothing", "/api/v2/runs"])
def test_an_unknown_path_is_named(client, path):
    """404 says which path it was and where the known ones are."""
    detail = detail_of(client.get(path), 404)
    assert f"nothing at {path}." in detail
    assert "/openapi.json" in detail


def test_an_endless_path_is_not_sent_back(client):
    """The answer shows its beginning."""
    assert len(detail_of(client.get("/" + "x" * 5000), 404)) < 300


def test_a_wrong_method_is_told_the_right_ones(client):
    """405 in words, too: not everybody sees headers."""
    assert detail_of(client.delete("/api/v1/runs"), 405) == "/api/v1/runs does not take DELETE, it takes GET."


@pytest.mark.parametrize("path", [EXECUTE, f"/api/v1/runs/{uuid4()}/cancel"])
@pytest.mark.parametrize(("headers", "says"), [({"Content-Type": FORM}, FORM), ({}, "has no Content-Type")])
def test_a_body_without_the_type_of_json_is_told_the_header(client, path, headers, says):
    """`curl -d` alone declares a form: 415, with what was declared and the form of curl that works."""
    detail = detail_of(client.post(path, content=b'{"workflow_name": "idle"}', headers=headers), 415)
    assert says in detail
    assert "-H 'Content-Type: application/json'" in detail


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.x+json"])
def test_json_has_several_names(client, kind):
    """Parameters, capitals and the types that are made of JSON are taken."""
    body = b'{"workflow_name": "idle", "input_data": {}}'
    assert client.post(EXECUTE, content=body, headers={"Content-Type": kind}).status_code == 202


def test_a_text_for_a_file_is_told_the_at_sign(client):
    """`-F file=contract.pdf` sends nine letters; 422 says what is missing before them."""
    detail = detail_of(client.post(DOCUMENTS, files={"file": (None, "contract.pdf")}), 422)
    assert detail.startswith("file is a text and no file")
    assert "-F file=@contract.pdf" in detail


def test_a_form_with_another_field_is_told_its_name(client):
    """422 names the field that is missing, and how it is sent."""
    detail = detail_of(client.post(DOCUMENTS, files={"document": ("a.txt", b"x")}), 422)
    assert detail.startswith("file is missing")
    assert "-F file=@contract.pdf" in detail


@pytest.mark.parametrize("headers", [{"Content-Type": "application/pdf"}, {"Content-Type": FORM}, {}])
def test_a_file_without_a_form_is_told_to_be_one(client, headers):
    """`--data-binary @contract.pdf` is 415, with the form of curl that works."""
    detail = detail_of(client.post(DOCUMENTS, content=b"%PDF-1.7", headers=headers), 415)
    assert "-F file=@contract.pdf" in detail


@pytest.mark.parametrize("size", [200_001, 600_000])
def test_a_file_that_is_too_large_is_told_its_limit(client, size):
    """The limit is the file's own, not that of the form around it; found while it comes in or after it."""
    detail = detail_of(client.post(DOCUMENTS, files={"file": ("a.txt", b"x" * size)}), 413)
    assert "a file may have 200,000 bytes" in detail


def test_a_json_body_that_is_too_large_is_told_its_limit(client):
    """In words, as all sizes."""
    response = client.post(EXECUTE, content=b"[" * 2_000_000, headers={"Content-Type": "application/json"})
    assert detail_of(response, 413) == "The body is too large: it may have 1 MiB."


@pytest.mark.parametrize(
    ("count", "words"),
    [(20 * 1024**2, "20 MiB"), (5 * 1024, "5 KiB"), (0, "0 bytes"), (1_500_001, "1,500,001 bytes")],
)
def test_sizes_are_told_exactly(count, words):
    """A unit only where nothing is rounded: a file of one byte more is refused."""
    assert told_size(count) == words


def test_parameters_are_named_with_where_they_stand(client):
    """A fault of a parameter is not taken for one of a body's field of that name."""
    for request, place, field in (
        (("GET", "/api/v1/runs?limit=0"), "query", "limit"),
        (("GET", "/api/v1/runs/no-id"), "path", "run_id"),
        (("GET", "/api/v1/runs?status=dead&status=odd"), "query", "status"),
    ):
        response = client.request(*request)
        detail = detail_of(response, 422)
        assert detail.startswith(f"{place} parameter {field} ")
        assert [(fault["in"], fault["field"]) for fault in response.json()["errors"]] == [(place, field)]
    body = {"workflow_name": "idle", "input_data": {}}
    response = client.post(EXECUTE, json=body, headers={"Idempotency-Key": "a b"})
    assert detail_of(response, 422).startswith("header idempotency-key must match ")


def test_a_list_or_an_object_that_is_too_short_is_told_without_words_of_python(client):
    """It has no dictionaries, and no validation that comes first."""
    response = client.post(f"/api/v1/runs/{uuid4()}/answer", json={"answers": {}})
    assert detail_of(response, 422) == "answers must have at least 1 item"


def test_what_is_missing_or_unknown_is_said_in_our_words(client):
    """One form of place everywhere: the path in the body as it was sent; then a predicate."""
    body = {"workflow_name": "idle", "options": {"isolation": "moon", "tiemout": 3}, "input_data": []}
    response = client.post(EXECUTE, json=body)
    assert detail_of(response, 422) == (
        "input_data must be an object; "
        "options.isolation must be 'none', 'context', 'thread' or 'process'; "
        "options.tiemout is not known"
    )
    assert detail_of(client.post(EXECUTE, json={}), 422) == "workflow_name is missing; input_data is missing"
    assert detail_of(client.post(EXECUTE), 422) == "the body is missing"
    listed = client.post(EXECUTE, content=b"[]", headers={"Content-Type": "application/json"})
    assert detail_of(listed, 422) == "the body must be an object"
    unknown = client.post(EXECUTE, json={"workflow_name": "gone", "input_data": {}})
    assert detail_of(unknown, 422) == "workflow_name names no workflow: 'gone'; known: idle"
    webhook = {"workflow_name": "idle", "input_data": {}, "options": {"webhook_url": "https://a.example"}}
    assert detail_of(client.post(EXECUTE, json=webhook), 422).startswith("options.webhook_url cannot be used")


_ID = {"type": "string", "format": "document-id"}
_SCHEMA = {"type": "object", "properties": {"document_id": _ID, "others": {"type": "array", "items": _ID}}}


class Reading:
    """As much of the Workflow port as is asked before a run is kept; its input names documents."""

    name, description, input_schema = "reading", "Reads.", _SCHEMA

    def check(self, input_data):
        """Whatever it is."""


def test_a_document_that_is_not_there_is_refused_before_the_run_is_kept(serve):
    """422 at once with the place of each; another's document is answered exactly as one that does not exist."""
    server = serve(workflows={"reading": Reading()})
    with server.client() as alice, server.client("bob's key") as bob:
        own = alice.post(DOCUMENTS, files={"file": ("a.txt", b"x")}).json()["document_id"]
        of_bob = bob.post(DOCUMENTS, files={"file": ("a.txt", b"x")}).json()["document_id"]
        answers = []
        for missing in (of_bob, str(uuid4())):
            given = {"document_id": missing, "others": [own, missing]}
            response = alice.post(EXECUTE, json={"workflow_name": "reading", "input_data": given})
            detail_of(response, 422)
            assert [fault["field"] for fault in response.json()["errors"]] == [
                "input_data.document_id",
                "input_data.others[1]",
            ]
            answers.append(response.text.replace(missing, "ID"))
        assert answers[0] == answers[1]
        assert alice.get("/api/v1/runs").json()["runs"] == []
        given = {"document_id": own, "others": [own]}
        response = alice.post(EXECUTE, json={"workflow_name": "reading", "input_data": given})
        assert response.status_code == 202
