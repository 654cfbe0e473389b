"""Attacks on the running service, on every operation of its OpenAPI document: a new route is attacked too."""

import json
import re
import socket
import time
from contextlib import closing
from urllib.parse import quote, urlsplit
from uuid import uuid4

import httpx
import jwt
import pytest

pytestmark = pytest.mark.needs("postgres")

INJECTIONS = (
    "' OR '1'='1",
    "'; DROP TABLE workflow.runs; --",
    "' UNION SELECT digest::text, null, null FROM workflow.api_keys --",
    "\\'; SELECT pg_sleep(30); --",
    "$1::text || (SELECT current_setting('workflow.subject'))",
    "bob'); SELECT set_config('workflow.subject', 'bob', true); --",
    "%' AND 1=1 --",
    "{{7*7}}${7*7}<%= 7*7 %>",
    "`id`; $(id) | id && id",
    "%00%0a%0dX-Injected: 1",
    "\u202e\ufeff\U0010ffff",
    "*)(uid=*))(|(uid=*",
)
POLLUTION = {
    "__proto__": {"isAdmin": True},
    "constructor": {"prototype": {"isAdmin": True}},
    "__class__": {"__init__": {"__globals__": {}}},
    "toString": None,
}
OPEN = ("/health/live", "/health/ready")
"""What answers without a key."""
METHODS = ("get", "post", "put", "patch", "delete")


@pytest.fixture(scope="module")
def operations(running):
    """Each operation of the interface: method, path and what its parameters are."""
    with running.client(None) as anyone:
        document = anyone.get("/openapi.json").json()
    return [
        (method.upper(), path, operation.get("parameters", []), operation.get("requestBody"))
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS and not path.startswith(OPEN)
    ]


@pytest.fixture(scope="module")
def of_bob(running):
    """What bob has: a document, a run of it that has ended, and a webhook's delivery that told so to nobody."""
    with running.client("bob") as bob:
        document = upload(bob, "secret.txt", b"The secret of bob is 4711.").json()["document_id"]
        run = execute(bob, {"document_id": document}, {"webhook_url": "https://hooks.invalid/"}).json()["run_id"]
        follow_to_end(bob, run)
        [delivery] = bob.get(f"/api/v1/webhooks/deliveries?run_id={run}").json()["deliveries"]
        return {"document_id": document, "run_id": run, "delivery_id": delivery["id"]}


def upload(client, name, content=b"some text", media_type="text/plain"):
    return client.post("/api/v1/documents", files={"file": (name, content, media_type)})


def execute(client, input_data, options=None, **headers):
    body = {"workflow_name": "contract_analysis", "input_data": input_data, "options": options or {}}
    return client.post("/api/v1/workflows/execute", json=body, headers=headers)


def follow_to_end(client, run_id):
    """Read a run's events to the last one."""
    with client.stream("GET", f"/api/v1/runs/{run_id}/events") as stream:
        return "".join(stream.iter_text())


def fill(path, values=()):
    """Put values for a path's parameters; what is not given is the id of nothing."""
    given = dict(values)
    return re.sub(r"{(\w+)}", lambda name: quote(str(given.get(name[1], uuid4())), safe=""), path)


def body_for(path):
    """Return a body that the operation would take."""
    if path.endswith("/cancel"):
        return {"json": {"mode": "kill"}}
    if path.endswith("/answer"):
        return {"json": {"answers": {"0" * 32: "yes"}}}
    return {}


def test_without_a_key_no_operation_answers(running, operations):
    """401, and the same for what is there and what is not."""
    with running.client(None) as anyone:
        for method, path, _, _ in operations:
            response = anyone.request(method, fill(path))
            assert (method, path, response.status_code) == (method, path, 401)


def test_what_is_anothers_answers_like_what_is_not_there(running, operations, of_bob):
    """On every operation that names something: 404, and but for the name the very same answer."""
    attacked = 0
    with running.client("alice") as alice, running.client("bob") as bob:
        before = {name: bob.get(f"/api/v1/{kind}/{of_bob[name]}").json() for kind, name in KINDS}
        for method, path, parameters, _ in operations:
            named = {each["name"] for each in parameters if each["in"] == "path" and each["name"].endswith("_id")}
            assert named <= of_bob.keys(), f"give bob one of what {path} names"
            if not named:
                continue
            nothing = {name: uuid4() for name in of_bob}
            theirs = alice.request(method, fill(path, of_bob), **body_for(path))
            absent = alice.request(method, fill(path, nothing), **body_for(path))
            assert (method, path, theirs.status_code, absent.status_code) == (method, path, 404, 404)
            told = absent.text
            for name, value in nothing.items():
                told = told.replace(str(value), of_bob[name])
            assert theirs.text == told
            assert {*theirs.headers} == {*absent.headers}
            attacked += 1
        assert attacked >= 4
        assert {name: bob.get(f"/api/v1/{kind}/{of_bob[name]}").json() for kind, name in KINDS} == before


KINDS = (("documents", "document_id"), ("runs", "run_id"))


def test_anothers_events_are_not_streamed(running, of_bob):
    """Whatever the client claims to have seen already; its owner gets them."""
    with running.client("alice") as alice, running.client("bob") as bob:
        for seen in ({}, {"Last-Event-ID": "1"}, {"Last-Event-ID": "999"}):
            refused = alice.get(f"/api/v1/runs/{of_bob['run_id']}/events", headers=seen)
            assert refused.status_code == 404
        assert "succeeded" in follow_to_end(bob, of_bob["run_id"])


def test_a_cursor_of_another_shows_nothing_of_theirs(running, of_bob):
    """A list that begins behind another's row is answered as one behind a row that is not there."""
    with running.client("alice") as alice:
        for path, name in (("runs", "run_id"), ("webhooks/deliveries", "delivery_id")):
            told = []
            for cursor in (of_bob[name], str(uuid4())):
                answer = alice.get(f"/api/v1/{path}?before={cursor}")
                told.append((answer.status_code, answer.text.replace(cursor, "ID")))
            assert told[0] == told[1]
            assert of_bob[name] not in alice.get(f"/api/v1/{path}?limit=100").text


def test_anothers_document_is_no_input(running, of_bob):
    """Refused at once, in the words for a document that is not there; nothing of it is in the answer."""
    with running.client("alice") as alice:
        said = []
        for document_id in (of_bob["document_id"], str(uuid4())):
            refused = execute(alice, {"document_id": document_id})
            assert refused.status_code == 422
            assert "4711" not in refused.text
            said.append(refused.text.replace(document_id, "ID"))
        assert said[0] == said[1]


def test_an_idempotency_key_is_its_users(running, of_bob):
    """The key that another used gives a run of one's own, for the same request and for another one."""
    key = uuid4().hex
    with running.client("alice") as alice, running.client("bob") as bob:
        document = upload(alice, "own.txt").json()["document_id"]
        theirs = execute(bob, {"document_id": of_bob["document_id"]}, **{"Idempotency-Key": key}).json()["run_id"]
        mine = execute(alice, {"document_id": document}, **{"Idempotency-Key": key})
        assert mine.status_code == 202
        assert mine.json()["run_id"] != theirs
        assert bob.get(f"/api/v1/runs/{mine.json()['run_id']}").status_code == 404


def test_sql_and_other_languages_in_every_field_are_text(running, operations, of_bob):
    """Path, query, headers and body of every operation: no failure, and no answer that is another's."""
    with running.client("alice") as alice, running.client("bob") as bob:
        requests = []
        for injection in INJECTIONS:
            for method, path, parameters, _ in operations:
                for parameter in parameters:
                    name, where = parameter["name"], parameter["in"]
                    if where == "path":
                        requests.append((method, fill(path, {name: injection}), {}))
                    elif where == "query":
                        requests.append((method, fill(path), {"params": {name: injection}}))
                    elif where == "header":
                        value = injection.encode("utf-8", "surrogatepass")
                        requests.append((method, fill(path), {"headers": [(name.encode(), value)]}))
            for body in (
                {"workflow_name": injection, "input_data": {}},
                {"workflow_name": "contract_analysis", "input_data": {"document_id": injection}},
                {"workflow_name": "contract_analysis", "input_data": {injection: injection}},
                {"workflow_name": "contract_analysis", "input_data": {}, "options": {injection: injection}},
                {"mode": injection},
                POLLUTION,
                {"workflow_name": "contract_analysis", "input_data": POLLUTION, "options": POLLUTION},
            ):
                for method, path, _, has_body in operations:
                    if has_body:
                        requests.append((method, fill(path), {"json": body}))
            requests.append(("POST", "/api/v1/documents", {"files": {"file": (injection + ".txt", b"text")}}))
            requests.append(
                ("POST", "/api/v1/documents", {"files": {"file": ("a.txt", b"text", "text/plain; a=b")}})
            )
        for method, path, options in requests:
            response = alice.request(method, path, **options)
            assert response.status_code < 500, (method, path, options, response.text)
            assert "4711" not in response.text
            assert "X-Injected" not in response.headers
        assert bob.get(f"/api/v1/runs/{of_bob['run_id']}").status_code == 200
        assert bob.get(f"/api/v1/runs/{of_bob['run_id']}/result").status_code == 200


PATHS = (
    "/api/v1/../v1/runs",
    "//api/v1/runs",
    "/api//v1/runs",
    "/api/v1/runs/",
    "/api%2fv1%2fruns",
    "/%61pi/v1/runs",
    "/API/v1/runs",
    "/health/../api/v1/runs",
    "/health/live/..;/api/v1/runs",
    "/./api/v1/runs",
    "/api/v1/runs;jsessionid=1",
    "/api/v1/runs%00",
    "/api/v1/runs?x=/health/live",
    "/api/v1/runs#/health/live",
    "http://other.example/api/v1/runs",
    "/\\api\\v1\\runs",
)
IDENTITIES = (
    "X-User",
    "X-User-Id",
    "X-Forwarded-User",
    "X-Remote-User",
    "Remote-User",
    "X-Auth-Request-User",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-HTTP-Method-Override",
    "Cookie",
    "Proxy-Authorization",
)


def ask(running, target, *headers):
    """Send a request as it is written, and return the whole answer."""
    where = urlsplit(running.address)
    lines = (f"GET {target} HTTP/1.1", f"Host: {where.netloc}", "Connection: close", *headers)
    with closing(socket.create_connection((where.hostname, where.port), timeout=60)) as connection:
        connection.sendall("\r\n".join((*lines, "", "")).encode("latin-1"))
        answer = bytearray()
        while more := connection.recv(65536):
            answer += more
    return bytes(answer)


@pytest.mark.parametrize("target", PATHS)
def test_no_way_of_writing_a_path_leads_past_the_key(running, target):
    """It is protected, or it is not there."""
    answer = ask(running, target)
    assert answer.split()[1] in (b"400", b"401", b"404", b"307"), answer
    assert b'"runs"' not in answer


@pytest.mark.parametrize("header", IDENTITIES)
def test_no_header_but_authorization_says_who_asks(running, of_bob, header):
    """Neither alone nor beside a key of another."""
    for value in (
        "bob",
        running.secrets["bob"],
        f"Bearer {running.secrets['bob']}",
        f"/api/v1/runs/{of_bob['run_id']}",
    ):
        assert ask(running, "/api/v1/runs", f"{header}: {value}").split()[1] == b"401"
        both = ask(
            running,
            f"/api/v1/runs/{of_bob['run_id']}",
            f"{header}: {value}",
            f"Authorization: Bearer {running.secrets['alice']}",
        )
        assert both.split()[1] == b"404"


def test_two_authorizations_are_refused(running):
    """Whoever stands before the service may have checked one and we the other; also when both are good."""
    alice, bob = (f"Authorization: Bearer {running.secrets[user]}" for user in ("alice", "bob"))
    for headers in (
        (alice, bob),
        (bob, alice),
        (alice, alice),
        ("Authorization: ", alice),
        (alice, "AUTHORIZATION: x"),
    ):
        assert ask(running, "/api/v1/runs", *headers).split()[1] == b"400"
    for header in (f"{alice}, Bearer {running.secrets['bob']}", f"{alice}\t{running.secrets['bob']}", alice + ","):
        assert ask(running, "/api/v1/runs", header).split()[1] == b"401"


NAMES = (
    "../../../../tmp/owned.txt",
    "..\\..\\owned.txt",
    "/etc/owned.txt",
    "C:\\owned.txt",
    "....//owned.txt",
    "%2e%2e%2fowned.txt",
    "owned.txt\r\nX-Injected: 1",
    'owned".txt',
    "con.txt",
    "a" * 5000 + ".txt",
    "\u202etxt.owned.md",
    "-rf.txt",
    "$(touch owned).txt",
    "~root/owned.txt",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_name_is_a_text_and_leads_nowhere(running, name, of_bob):
    """It is kept as a name or refused; nothing appears in a folder, and no header is made of it."""
    with running.client("alice") as alice:
        kept = upload(alice, name)
        assert kept.status_code in (201, 400, 413, 415, 422), kept.text
        assert "X-Injected" not in kept.headers
        if kept.status_code == 201:
            shown = alice.get(f"/api/v1/documents/{kept.json()['document_id']}").json()["filename"]
            assert "/" not in shown
            assert "\n" not in shown
    assert not list(running.folder.rglob("*owned*"))


@pytest.mark.parametrize(
    "name", ["../app.py", "..%2f..%2fsettings.py", "/etc/passwd", "..", ".", "", "mutual-nda.pdf/..", "\0"]
)
def test_a_sample_is_named_and_never_a_path(running, name):
    """What is not in the list of samples is not there."""
    with running.client("alice") as alice:
        response = alice.post(f"/api/v1/samples/{quote(name, safe='')}/documents")
        assert response.status_code in (404, 405, 307, 415), response.text  # .. is taken out by the client


def test_bodies_have_a_bound_on_every_operation(running, operations):
    """Announced or not: more than is allowed is 413, and nobody waits for the rest."""
    with running.client("alice") as alice:
        for method, path, _, has_body in operations:
            if has_body:
                is_upload = path.endswith("/documents")
                head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n' * is_upload
                for content in (head + b"x" * 2_000_000, iter([head, *[b"x" * 100_000] * 20])):
                    kind = "multipart/form-data; boundary=x" if is_upload else "application/json"
                    try:
                        answer = alice.request(method, fill(path), content=content, headers={"Content-Type": kind})
                    except httpx.TransportError:
                        continue  # the connection was closed while we still sent
                    assert answer.status_code == 413, (method, path)


def test_json_that_explodes_is_refused(running):
    """Depth, digits, duplicate keys, strange encodings: no failure."""
    bodies = (
        b"[" * 500_000,
        b'{"a":' * 100_000,
        b'{"workflow_name": ' + b"9" * 900_000 + b"}",
        b'{"workflow_name":"x","input_data":{"a":1e999999}}',
        b'{"workflow_name":"x","input_data":{"a":-1e999999}}',
        b'{"workflow_name":"x","workflow_name":"y","input_data":{}}',
        json.dumps({"workflow_name": "x", "input_data": {}}).encode("utf-16"),
        b'\xef\xbb\xbf{"workflow_name":"x","input_data":{}}',
        b'{"workflow_name":"\\ud800","input_data":{"\\u0000":"\\u0000"}}',
        b"\x80abc",
        b"",
        b"null",
        b'"x"',
    )
    with running.client("alice") as alice:
        for body in bodies:
            answer = alice.post(
                "/api/v1/workflows/execute", content=body, headers={"Content-Type": "application/json"}
            )
            assert answer.status_code in (400, 413, 422), (body[:50], answer.text[:200])


def test_tokens_reach_the_running_service(running):
    """A good token is its subject; without signature, with another audience or out of date it opens nothing."""
    good = {"sub": "carol", "iss": "https://issuer.example", "aud": "workflow-service", "exp": 4_000_000_000}
    secret = running.secrets["token"]
    with running.client(None) as anyone:

        def status(token):
            return anyone.get("/api/v1/runs", headers={"Authorization": f"Bearer {token}"}).status_code

        assert status(jwt.encode(good, secret, "HS256")) == 200
        assert status(jwt.encode(good, "", "none")) == 401
        assert status(jwt.encode(good | {"aud": "other"}, secret, "HS256")) == 401
        assert status(jwt.encode(good | {"exp": 1}, secret, "HS256")) == 401
        assert status(jwt.encode(good, "x" * 64, "HS256")) == 401


def test_a_webhook_reaches_nothing_inside(running):
    """However the address is written: refused, or the delivery fails, and nobody here is connected to."""
    with running.client("alice") as alice, socket.create_server(("127.0.0.1", 0)) as inside:
        port = inside.getsockname()[1]
        document = upload(alice, "own.txt").json()["document_id"]
        runs = []
        for host in INSIDE:
            answer = execute(alice, {"document_id": document}, {"webhook_url": f"{host}:{port}/hook"})
            assert answer.status_code in (202, 422), answer.text
            if answer.status_code == 202:
                runs.append(answer.json()["run_id"])
        for run_id in runs:
            follow_to_end(alice, run_id)
            deadline = time.monotonic() + 60
            while True:
                [delivery] = alice.get(f"/api/v1/webhooks/deliveries?run_id={run_id}").json()["deliveries"]
                if delivery["attempts"] and delivery["last_error"]:
                    break
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert delivery["status"] != "delivered"
        inside.setblocking(False)
        with pytest.raises(BlockingIOError):
            inside.accept()


INSIDE = (
    "http://127.0.0.1",
    "https://localhost",
    "http://[::1]",
    "http://[::ffff:127.0.0.1]",
    "http://2130706433",
    "http://0x7f000001",
    "http://0177.0.0.1",
    "http://127.1",
    "http://0.0.0.0",
    "http://localhost.",
    "http://user:password@127.0.0.1",
    "http://hooks.example@127.0.0.1",
    "http://127.0.0.1#@hooks.example",
    "gopher://127.0.0.1",
    "file://127.0.0.1",
)
