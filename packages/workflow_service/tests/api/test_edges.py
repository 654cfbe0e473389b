"""Who may ask, what every answer carries, and what failures look like."""

import asyncio
import hmac
import logging
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from workflow_service.api import readiness
from workflow_service.api.app import create_app
from workflow_service.ports import StoreUnavailableError

pytestmark = pytest.mark.needs("postgres")

PROTECTED = [
    ("GET", "/api/v1/runs"),
    ("POST", "/api/v1/workflows/execute"),
    ("POST", "/api/v1/documents"),
    ("GET", "/api/v1/nothing-here"),
    ("GET", "/api/v2/runs"),
]


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer wrong", "Basic YWxpY2U=", "alice's key", "Bearer alice's key x"]
)
def test_without_a_known_key_nothing_answers(server, authorization):
    """401 as a problem document with a challenge, the same for what exists and what does not."""
    headers = {} if authorization is None else {"Authorization": authorization}
    with server.client(None) as anyone:
        for method, path in PROTECTED:
            response = anyone.request(method, path, headers=headers)
            assert (response.status_code, response.headers["Content-Type"]) == (401, "application/problem+json")
            assert response.headers["WWW-Authenticate"].startswith("Bearer realm=")


@pytest.mark.parametrize("root_path", ["/behind/a/proxy", "/api"])
def test_behind_a_proxy_that_takes_a_prefix_off_the_same_is_protected(serve, root_path):
    """uvicorn's root_path is part of the path that the application sees; who decides by paths leaves it out."""
    service = serve(root_path=root_path)
    with service.client(None) as anyone, service.client() as alice:
        for path in ("/api/v1/runs", "/api/v1/workflows", "/health/loops", "/metrics"):
            assert anyone.get(path).status_code == 401, path
            answer = alice.get(path)
            assert answer.status_code == 200, path
        assert alice.get("/api/v1/runs").headers["Cache-Control"] == "no-store"
        assert anyone.get("/health/live").status_code == 200
        assert anyone.get("/").headers["Content-Type"].startswith("text/html")
        wrong_method = alice.put("/api/v1/runs")
        assert (wrong_method.status_code, wrong_method.headers["Allow"]) == (405, "GET")


def test_a_known_key_is_its_users(server):
    """The scheme's case does not matter, as RFC 9110 says; the key decides who asks."""
    with server.client(None) as anyone:
        for scheme in ("Bearer", "bearer", "BEARER"):
            headers = {"Authorization": f"{scheme} alice's key"}
            assert anyone.get("/api/v1/runs", headers=headers).status_code == 200


def test_a_key_beyond_ascii_works(serve, settings, monkeypatch):
    """Keys are compared as UTF-8 bytes; sending one that is no key is no failure either."""
    settings.api_keys["zoe"] = type(settings.api_keys["alice"])("schlüssel")
    with serve().client(None) as anyone:
        for key, status in (("schlüssel", 200), ("schlussel", 401), ("\x80", 401)):
            headers = [(b"Authorization", b"Bearer " + key.encode())]
            assert anyone.get("/api/v1/runs", headers=headers).status_code == status


REFUSALS = [
    ("GET", "/api/v1/nothing", 404),
    ("GET", "/nothing", 404),
    ("GET", "/%2e%2e/app.py", 404),
    ("GET", "/..%2fapp.py", 404),
    ("GET", "/api/v1/workflows/execute", 405),
    ("DELETE", "/api/v1/runs", 405),
    ("PUT", f"/api/v1/runs/{UUID(int=1)}", 405),
    ("POST", "/", 405),
    ("POST", "/health/live", 405),
    ("GET", "/api/v1/runs/no-id", 422),
    ("GET", "/api/v1/runs?limit=0", 422),
    ("GET", "/api/v1/runs?before=x", 422),
]


ALLOWED = {
    "/api/v1/workflows/execute": "POST",
    "/api/v1/runs": "GET",
    f"/api/v1/runs/{UUID(int=1)}": "DELETE, GET",
    "/": "GET, HEAD",
    "/health/live": "GET",
}


def test_every_refusal_is_a_problem_document(client):
    """Unknown paths, wrong methods and wrong parameters answer in one format; 405 says what is allowed."""
    for method, path, status in REFUSALS:
        response = client.request(method, path)
        assert (path, response.status_code) == (path, status)
        assert response.headers["Content-Type"] == "application/problem+json"
        assert response.json()["status"] == status
        assert response.json()["title"]
        if status == 405:
            assert (path, response.headers["Allow"]) == (path, ALLOWED[path])


def test_a_large_json_body_is_refused(client):
    """Bodies of other paths than the upload's are limited to a megabyte."""
    response = client.post(
        "/api/v1/workflows/execute",
        content=b'{"workflow_name": "' + b"x" * 2_000_000,
        headers={"Content-Type": "application/json"},
    )
    assert (response.status_code, response.headers["Content-Type"]) == (413, "application/problem+json")


def test_every_answer_tells_browsers_what_they_may_do(client):
    """A strict content policy on all answers; what concerns users is never stored."""
    for path in ("/", "/nothing", "/api/v1/runs", "/api/v1/nothing", "/health/live"):
        headers = client.get(path).headers
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        is_about_users = path.startswith(("/api/", "/health/"))
        assert headers["Cache-Control"] == ("no-store" if is_about_users else "no-cache")


def test_the_page_is_at_the_root_and_needs_no_key(server):
    """HTML at the root, and each file it names."""
    with server.client(None) as anyone:
        page = anyone.get("/")
        assert page.headers["Content-Type"].startswith("text/html")
        assert anyone.get("/main.js").headers["Content-Type"].startswith("text/javascript")


class FailingStore:
    """A store that fails in a way the test chooses."""

    def __init__(self, error):
        self._error = error

    async def list_recent(self, *_args, **_filters):
        raise self._error

    async def requeue_lost(self, _limit):
        return []

    async def take_forgettable(self, _limit):
        return []


def test_an_unexpected_failure_tells_the_user_a_number_and_the_log_the_rest(serve, caplog):
    """500 without internals; the number in the answer is in the log, with the traceback."""
    with serve(runs=FailingStore(ZeroDivisionError("secret internals"))).client() as client:
        response = client.get("/api/v1/runs")
    assert (response.status_code, response.headers["Content-Type"]) == (500, "application/problem+json")
    assert "secret" not in response.text
    assert "ZeroDivision" not in response.text
    failure_id = response.json()["instance"].removeprefix("urn:uuid:")
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert failure_id in record.getMessage()
    assert record.exc_info[0] is ZeroDivisionError


def test_a_database_that_is_away_is_503_without_its_address(serve):
    """The client is told to come back; hosts and ports stay in the log."""
    with serve(runs=FailingStore(StoreUnavailableError("10.1.2.3:5432 refused"))).client() as client:
        response = client.get("/api/v1/runs")
    assert (response.status_code, response.headers["Content-Type"]) == (503, "application/problem+json")
    assert response.headers["Retry-After"]
    assert "10.1.2.3" not in response.text


def test_a_healthy_service_says_so(server):
    """Live and ready need no key; ready names each part."""
    with server.client(None) as anyone:
        assert anyone.get("/health/live").json() == {"status": "live"}
        ready = anyone.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert ready.json()["checks"] == {"database": True, "migrations": True, "queue": True}


def test_a_service_that_cannot_work_says_which_part_is_missing(serve):
    """503 as a problem document with the parts."""

    async def ready():
        return {"database": True, "migrations": True, "queue": False}

    with serve(ready=ready).client(None) as anyone:
        response = anyone.get("/health/ready")
        assert anyone.get("/health/live").status_code == 200
    assert (response.status_code, response.headers["Content-Type"]) == (503, "application/problem+json")
    assert response.json()["checks"]["queue"] is False
    assert "queue" in response.json()["detail"]


def test_who_asks_for_readiness_costs_one_look_a_second(serve, monkeypatch):
    """Anyone may ask as often as they like: the parts are asked once while the answer is fresh."""
    monkeypatch.setattr(readiness, "_LIFETIME", 3600.0)
    looks = []

    async def ready():
        looks.append(1)
        return {"queue": len(looks) == 1}

    with serve(ready=ready).client(None) as anyone, ThreadPoolExecutor(10) as threads:
        statuses = set(threads.map(lambda _: anyone.get("/health/ready").status_code, range(30)))
        assert (statuses, len(looks)) == ({200}, 1)


def test_readiness_is_asked_again_when_the_answer_is_old(serve, monkeypatch):
    """A part that goes away shows."""
    monkeypatch.setattr(readiness, "_LIFETIME", 0.0)
    answers = iter([True, False])

    async def ready():
        return {"queue": next(answers)}

    with serve(ready=ready).client(None) as anyone:
        assert [anyone.get("/health/ready").status_code for _ in range(2)] == [200, 503]


def test_keys_are_compared_at_one_length(server, monkeypatch):
    """compare_digest gives away lengths that differ, so it gets none: neither a key's nor a candidate's."""
    lengths = set()
    compare = hmac.compare_digest

    def compare_digest(first, second):
        lengths.update((len(first), len(second)))
        return compare(first, second)

    monkeypatch.setattr(hmac, "compare_digest", compare_digest)
    for key in ("a", "alice's key", "x" * 500):
        with server.client(key) as someone:
            someone.get("/api/v1/runs")
    assert lengths == {32}


def test_the_app_enqueues_what_was_left(serve, settings, wait_until):
    """The reaper runs inside the app: a run that nobody was told of is enqueued."""
    settings.reap_interval = 0.05
    server = serve()

    async def leave_a_run(services):
        from workflow_service.domain.run import NewRun

        run, _ = await services.runs.create(NewRun("alice", "idle", {}))
        await services.runs.mark_unsent([run.id])
        return run.id

    run_id = server.call(leave_a_run)
    wait_until(lambda: run_id in server.services.queue.sent)


def test_a_service_without_its_database_does_not_start(settings, unused_port):
    """The app's start fails, and does not leave something half open."""
    broken = settings.model_copy(update={"database_url": f"postgresql://x@127.0.0.1:{unused_port}/x"})
    app = create_app(broken)

    async def scenario():
        with pytest.raises((OSError, StoreUnavailableError)):
            async with app.router.lifespan_context(app):
                pass

    asyncio.run(scenario())


def test_the_interface_describes_itself(server):
    """The OpenAPI document names every route and the key."""
    with server.client(None) as anyone:
        document = anyone.get("/openapi.json").json()
    assert document["paths"].keys() >= {
        "/api/v1/documents",
        "/api/v1/documents/{document_id}",
        "/api/v1/runs",
        "/api/v1/runs/{run_id}",
        "/api/v1/runs/{run_id}/events",
        "/api/v1/runs/{run_id}/result",
        "/api/v1/samples",
        "/api/v1/samples/{name}/documents",
        "/api/v1/workflows",
        "/api/v1/workflows/execute",
        "/health/live",
        "/health/ready",
    }
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
