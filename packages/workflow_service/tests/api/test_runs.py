"""Submit, list, look at runs and their results over HTTP."""

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest

pytestmark = pytest.mark.needs("postgres")

EXECUTE = "/api/v1/workflows/execute"
REQUEST = {"workflow_name": "idle", "input_data": {"a": 1}, "options": {"fast": True}}


def submit(client, **headers):
    response = client.post(EXECUTE, json=REQUEST, headers=headers)
    assert response.status_code == 202
    return response.json()["run_id"]


def test_a_submitted_run_can_be_found_where_the_answer_says(client, server):
    """202, Location and run id lead to the same run; the broker was told once."""
    response = client.post(EXECUTE, json=REQUEST)
    assert response.status_code == 202
    run_id = response.json()["run_id"]
    assert response.json() == {"run_id": run_id, "status": "queued"}
    run = client.get(response.headers["Location"]).json()
    assert (run["id"], run["workflow_name"], run["status"]) == (run_id, "idle", "queued")
    assert (run["input_data"], run["options"], run["error"]) == ({"a": 1}, {"fast": True}, None)
    assert server.services.queue.sent == [UUID(run_id)]


def test_requests_at_once_with_one_key_make_one_run(client, server):
    """Idempotency-Key: 100 requests, 100 times the same answer, one run, one message."""
    with ThreadPoolExecutor(20) as threads:
        ids = set(threads.map(lambda _: submit(client, **{"Idempotency-Key": "k1"}), range(100)))
    assert len(ids) == 1
    assert len(server.services.queue.sent) == 1
    assert len(client.get("/api/v1/runs").json()["runs"]) == 1


def test_a_key_that_belongs_to_another_request_is_a_conflict(client, bob):
    """409 for the same user; another user's keys are their own."""
    run_id = submit(client, **{"Idempotency-Key": "k1"})
    response = client.post(EXECUTE, json=REQUEST | {"options": {}}, headers={"Idempotency-Key": "k1"})
    assert response.status_code == 409
    assert response.json()["type"].endswith(":idempotency-key-reused")
    assert submit(bob, **{"Idempotency-Key": "k1"}) != run_id


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"workflow_name": "gone", "input_data": {}}', "idle"),
        (b'{"workflow_name": "idle", "input_data": {"bad": 1}}', "input_data.bad"),
        (b'{"workflow_name": "idle", "input_data": {"x": "\\u0000"}}', "NUL"),
        (b'{"workflow_name": "idle", "input_data": {"x": "\\ud800"}}', "surrogate"),
        (b'{"workflow_name": "idle", "input_data": {"x": NaN}}', "nan"),
        (b'{"workflow_name": "idle", "input_data": {"x": 1e999}}', "inf"),
        (b'{"workflow_name": "idle", "input_data": {"x": ' + b"[" * 200 + b"]" * 200 + b"}}", "nested"),
    ],
)
def test_input_that_cannot_be_worked_on_is_422_and_says_why(client, body, says):
    """Whatever a workflow or the database refuses is refused at the edge, with the place."""
    response = client.post(EXECUTE, content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.headers["Content-Type"]) == (422, "application/problem+json")
    assert says in response.json()["detail"]
    assert client.get("/api/v1/runs").json() == {"runs": [], "next": None}


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"{}", {"body.workflow_name", "body.input_data"}),
        (b'{"workflow_name": "idle", "input_data": [], "surprise": 1}', {"body.input_data", "body.surprise"}),
        (b'{"workflow_name": ', {"body.18"}),
    ],
)
def test_a_request_of_the_wrong_shape_is_422_with_its_fields(client, body, fields):
    """Each fault is named, without the value that was sent."""
    response = client.post(EXECUTE, content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.headers["Content-Type"]) == (422, "application/problem+json")
    assert {fault["field"] for fault in response.json()["errors"]} == fields
    assert all(fault.keys() == {"field", "message"} for fault in response.json()["errors"])


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"x": ' + b"9" * 5000 + b"}", b"\xfe", b'{"workflow_name": "\xff"}']
)
def test_a_body_that_breaks_the_parser_is_the_clients_fault(client, body):
    """Endless nesting, endless numbers and broken UTF-8 are 400, as documented, never 5xx."""
    response = client.post(EXECUTE, content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["type"]) == (400, "about:blank")
    assert response.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("key", ["", "x" * 256, "a b"])
def test_an_idempotency_key_that_is_no_token_is_422(client, key):
    """Keys are 1 to 255 visible ASCII characters."""
    response = client.post(EXECUTE, json=REQUEST, headers={"Idempotency-Key": key})
    assert response.status_code == 422


def test_pages_lead_through_all_runs(client, bob):
    """The cursor visits every run of the user once, newest first, and nobody else's."""
    ids = [submit(client) for _ in range(5)]
    submit(bob)
    seen, cursor = [], None
    while True:
        page = client.get("/api/v1/runs", params={"limit": 2} | ({"before": cursor} if cursor else {})).json()
        seen += [run["id"] for run in page["runs"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == ids[::-1]


def test_what_belongs_to_others_is_not_there(client, bob):
    """Every address of a foreign run answers exactly as one that does not exist."""
    run_id = submit(client)
    for address in ("", "/events", "/result"):
        foreign = bob.get(f"/api/v1/runs/{run_id}{address}")
        missing_id = str(uuid4())
        missing = bob.get(f"/api/v1/runs/{missing_id}{address}")
        assert foreign.status_code == missing.status_code == 404
        assert foreign.text.replace(run_id, "") == missing.text.replace(missing_id, "")


def test_a_result_comes_when_the_run_has_succeeded(client, server):
    """409 with Retry-After until then; afterwards what the workflow returned, as it is."""
    run_id = submit(client)
    early = client.get(f"/api/v1/runs/{run_id}/result")
    assert (early.status_code, early.headers["Retry-After"]) == (409, "1")
    claim = server.claim(run_id)
    assert client.get(f"/api/v1/runs/{run_id}/result").json()["run_status"] == "running"
    server.call(lambda services: services.runs.succeed(claim, {"findings": [1, "ü"]}))
    response = client.get(f"/api/v1/runs/{run_id}/result")
    assert (response.status_code, response.json()) == (200, {"findings": [1, "ü"]})


def test_a_failed_run_gives_its_error_as_a_problem(client, server):
    """The result of a failed run is a problem document with the workflow's message."""
    run_id = submit(client)
    claim = server.claim(run_id)
    error = {"type": "WorkflowError", "message": "no text in it"}
    server.call(lambda services: services.runs.fail(claim, error))
    response = client.get(f"/api/v1/runs/{run_id}/result")
    assert (response.status_code, response.headers["Content-Type"]) == (422, "application/problem+json")
    problem = response.json()
    assert problem["type"].endswith(":run-failed")
    assert (problem["detail"], problem["error"]) == ("no text in it", error)
    assert client.get(f"/api/v1/runs/{run_id}").json()["error"] == error


def test_workflows_are_listed_by_name(client):
    """Name and description, nothing else."""
    assert client.get("/api/v1/workflows").json() == {
        "workflows": [{"name": "idle", "description": "Does nothing.", "input_schema": {"type": "object"}}]
    }
