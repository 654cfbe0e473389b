"""Submit, list, look at runs and their results over HTTP."""

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest

from workflow_service.domain.run import Progress, Question
from workflow_service.ports import ClaimLostError

pytestmark = pytest.mark.needs("postgres")

EXECUTE = "/api/v1/workflows/execute"
REQUEST = {"workflow_name": "idle", "input_data": {"a": 1}, "options": {"isolation": "thread", "timeout": 60}}


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
    assert (run["input_data"], run["options"], run["error"]) == (
        {"a": 1},
        {"isolation": "thread", "timeout": 60},
        None,
    )
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
        (b"{}", {"workflow_name", "input_data"}),
        (b"", {""}),
        (b'{"workflow_name": "idle", "input_data": [], "surprise": 1}', {"input_data", "surprise"}),
        (
            b'{"workflow_name": "idle", "input_data": {}, "options": {"isolation": "moon", "timeout": 0, "x": 1}}',
            {"options.isolation", "options.timeout", "options.x"},
        ),
        (b'{"workflow_name": "idle", "input_data": {}, "options": {"timeout": NaN}}', {"options.timeout"}),
    ],
)
def test_a_request_of_the_wrong_shape_is_422_with_its_fields(client, body, fields):
    """Each fault is named, without the value that was sent."""
    response = client.post(EXECUTE, content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.headers["Content-Type"]) == (422, "application/problem+json")
    assert {fault["field"] for fault in response.json()["errors"]} == fields
    assert all(fault.keys() == {"in", "field", "message"} for fault in response.json()["errors"])
    assert {fault["in"] for fault in response.json()["errors"]} == {"body"}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"x": ' * 10_000, "nested too deeply"),
        (b'{"x": ' + b"9" * 5000 + b"}", "too many digits"),
        (b"\xfe", "not UTF-8: byte 0"),
        (b'{"workflow_name": "\xff"}', "not UTF-8: byte 19"),
        (b'{"workflow_name": ', "no JSON: Expecting value at line 1, column 19"),
        (b'{"workflow_name": "idle", "input_data": {"a": 1, "a": 2}}', "the key 'a' twice"),
    ],
)
def test_a_body_that_is_no_json_is_400_and_says_why(client, body, says):
    """Endless nesting, endless numbers, broken UTF-8 and a key that stands twice: never 5xx, never a guess."""
    response = client.post(EXECUTE, content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["type"]) == (400, "about:blank")
    assert response.headers["Content-Type"] == "application/problem+json"
    assert says in response.json()["detail"]


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


def test_what_is_listed_can_be_chosen_by_status_and_workflow(client, server):
    """Filters hold across pages; a status that does not exist is 422."""
    first, second = submit(client), submit(client)
    server.claim(first)
    assert [run["id"] for run in client.get("/api/v1/runs", params={"status": "running"}).json()["runs"]] == [
        first
    ]
    both = client.get("/api/v1/runs", params={"status": ["running", "queued"], "workflow_name": "idle"}).json()
    assert [run["id"] for run in both["runs"]] == [second, first]
    assert client.get("/api/v1/runs", params={"workflow_name": "other"}).json()["runs"] == []
    assert client.get("/api/v1/runs", params={"status": "asleep"}).status_code == 422


def test_waiting_returns_the_ended_run_or_how_it_stands(client, server):
    """At once without time, and when the run ends with it; a time beyond the bound is 422."""
    run_id = submit(client)
    assert client.get(f"/api/v1/runs/{run_id}/wait", params={"timeout": 0}).json()["status"] == "queued"
    claim = server.claim(run_id)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.get, f"/api/v1/runs/{run_id}/wait", params={"timeout": 30})
        server.call(lambda services: services.runs.record_progress(claim, Progress("read", 40, "")))
        server.call(lambda services: services.runs.succeed(claim, {}))
        run = waiting.result(30).json()
    assert (run["status"], run["percent"], run["step"]) == ("succeeded", 100, "read")
    assert client.get(f"/api/v1/runs/{run_id}/wait", params={"timeout": 1e9}).status_code == 422


def test_a_queued_run_is_cancelled_at_once_and_can_be_resumed_and_deleted(client, server):
    """Cancel, resume, cancel with rollback, delete: each answers with how the run stands then."""
    run_id = submit(client)
    address = f"/api/v1/runs/{run_id}"
    run = client.get(address).json()
    assert (run["can_cancel"], run["can_resume"], run["cancel_mode"]) == (True, False, None)
    assert client.delete(address).json()["run_status"] == "queued"
    assert client.post(f"{address}/resume").status_code == 409
    cancelled = client.post(f"{address}/cancel", json={"mode": "drain"})
    assert cancelled.status_code == 202
    run = cancelled.json()
    assert (run["status"], run["can_cancel"], run["can_resume"], run["cancel_mode"]) == (
        "cancelled",
        False,
        True,
        "drain",
    )
    again = client.post(f"{address}/cancel")
    assert (again.status_code, again.json()["type"][-11:], again.json()["run_status"]) == (
        409,
        ":run-status",
        "cancelled",
    )
    resumed = client.post(f"{address}/resume")
    assert (resumed.status_code, resumed.json()["status"], resumed.json()["error"]) == (202, "queued", None)
    assert server.services.queue.sent == [UUID(run_id)] * 2
    assert client.post(f"{address}/cancel", json={"mode": "rollback"}).json()["can_resume"] is False
    assert client.post(f"{address}/resume").status_code == 409
    assert client.delete(address).status_code == 204
    assert client.get(address).status_code == 404
    assert client.delete(address).status_code == 404


def test_a_running_run_is_cancelling_until_its_worker_has_stopped(client, server):
    """202 and «cancelling» for what a worker holds; a harder mode follows, a softer one changes nothing."""
    run_id = submit(client)
    address = f"/api/v1/runs/{run_id}/cancel"
    claim = server.claim(run_id)
    assert client.post(address, json={"mode": "drain"}).json()["status"] == "cancelling"
    assert client.post(address, json={"mode": "rollback"}).json()["cancel_mode"] == "rollback"
    assert client.post(address, json={"mode": "interrupt"}).json()["cancel_mode"] == "rollback"
    server.call(lambda services: services.runs.cancel(claim))
    run = client.get(f"/api/v1/runs/{run_id}").json()
    assert (run["status"], run["can_resume"], run["cancel_mode"]) == ("cancelled", False, "rollback")
    assert client.get(f"/api/v1/runs/{run_id}/result").json()["type"].endswith(":run-cancelled")


def test_a_killed_run_has_ended_whatever_its_worker_does(client, server):
    """«kill» ends the run in the database; the claim of its worker is worth nothing from then on."""
    run_id = submit(client)
    claim = server.claim(run_id)
    assert client.post(f"/api/v1/runs/{run_id}/cancel", json={"mode": "kill"}).json()["status"] == "cancelled"
    with pytest.raises(ClaimLostError):
        server.call(lambda services: services.runs.succeed(claim, {}))


@pytest.mark.parametrize("body", [{"mode": "gently"}, {"mode": "drain", "x": 1}])
def test_a_way_to_cancel_that_does_not_exist_is_422(client, body):
    """Nothing is cancelled by mistake."""
    run_id = submit(client)
    assert client.post(f"/api/v1/runs/{run_id}/cancel", json=body).status_code == 422
    assert client.get(f"/api/v1/runs/{run_id}").json()["status"] == "queued"


def test_nobody_steers_the_runs_of_others(client, bob):
    """Cancel, resume, delete and wait of a foreign run answer as for one that does not exist."""
    run_id = submit(client)
    for method, address in (
        ("POST", "/cancel"),
        ("POST", "/resume"),
        ("DELETE", ""),
        ("GET", "/wait?timeout=0"),
    ):
        assert bob.request(method, f"/api/v1/runs/{run_id}{address}").status_code == 404
    assert client.get(f"/api/v1/runs/{run_id}").json()["status"] == "queued"


def test_every_route_documents_its_problems(client):
    """The OpenAPI document names problem+json for 401, 422, 500 and 503 of each route, and its schema."""
    document = client.get("/openapi.json").json()
    assert document["components"]["schemas"]["Problem"]["properties"].keys() == {
        "type",
        "title",
        "status",
        "detail",
    }
    for path, methods in document["paths"].items():
        if path.startswith("/api/"):
            for method, operation in methods.items():
                for status in ("401", "422", "500", "503"):
                    content = operation["responses"][status]["content"]
                    assert content.keys() == {"application/problem+json"}, (method, path, status)


def test_a_result_that_is_deleted_while_it_is_asked_for_is_404(client, server, monkeypatch):
    """No empty 200: between the look at the run and at its result somebody else may delete it."""
    run_id = submit(client)
    claim = server.claim(run_id)
    server.call(lambda services: services.runs.succeed(claim, {}))

    async def deleted(_store, _user_id, _run_id):
        return None

    monkeypatch.setattr(type(server.services.runs), "result", deleted)
    assert client.get(f"/api/v1/runs/{run_id}/result").status_code == 404


def test_a_run_that_asks_is_answered(client, bob, server):
    """`questions` says what it asks; `/wait` returns at once; the answer is 202 and the run goes on."""
    run_id = submit(client)
    claim, questions = server.claim(run_id), [Question("q1", {"question": "Sign it?"})]
    server.call(lambda services: services.runs.wait_for_answers(claim, questions))
    run = client.get(f"/api/v1/runs/{run_id}/wait", params={"timeout": 60}).json()
    assert (run["status"], run["questions"]) == ("waiting", [{"id": "q1", "value": {"question": "Sign it?"}}])
    assert client.get("/api/v1/runs", params={"status": "waiting"}).json()["runs"][0]["id"] == run_id
    assert client.get(f"/api/v1/runs/{run_id}/result").status_code == 409
    answer = f"/api/v1/runs/{run_id}/answer"
    assert bob.post(answer, json={"answers": {"q1": True}}).status_code == 404
    refused = client.post(answer, json={"answers": {"q2": True}})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "answers.q2")
    assert client.post(answer, json={"answers": {}}).status_code == 422
    answered = client.post(answer, json={"answers": {"q1": True}})
    assert (answered.status_code, answered.json()["status"]) == (202, "queued")
    assert client.post(answer, json={"answers": {"q1": True}}).status_code == 409
    assert server.services.queue.sent == [UUID(run_id)] * 2
