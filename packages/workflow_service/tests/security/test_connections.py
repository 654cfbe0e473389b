"""Clients that are slow, endless or malformed, over raw sockets, against the protocol that serves the API."""

import asyncio
import json
import socket
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn
from fastapi import FastAPI, Request

from workflow_service.api import body_limit, connections
from workflow_service.api.body_limit import BodyLimit
from workflow_service.api.connections import PatientProtocol
from workflow_service.api.problems import add_problem_handlers

BOUND = 30.0  # seconds; what would last for ever fails after it
HEAD = b"POST /echo HTTP/1.1\r\nHost: x\r\n"
LARGE = 8 * 1024 * 1024  # bytes: more than all buffers between server and client


def application():
    app = FastAPI()

    @app.post("/echo")
    async def echo(request: Request):
        return {"bytes": len(await request.body())}

    @app.post("/refuse")
    async def refuse():
        return {"refused": True}

    @app.get("/large")
    async def large():
        return "x" * LARGE

    add_problem_handlers(app)
    return BodyLimit(app, upload_path="/upload", max_upload_bytes=1000)


@contextmanager
def serving():
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(application(), log_config=None, http=PatientProtocol, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1], server
    finally:
        server.should_exit = True
        thread.join(BOUND)
        assert not thread.is_alive()


@pytest.fixture
def bounds(monkeypatch):
    """Short ones, so that a test sees them."""
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", 0.4)
    monkeypatch.setattr(connections, "READ_TIMEOUT", 0.4)
    monkeypatch.setattr(connections, "AFTER_ANSWER", 0.4)
    monkeypatch.setattr(body_limit, "GRACE", 0.4)


@pytest.fixture
def port(bounds):
    """Where a server with short bounds listens."""
    with serving() as (where, _):
        yield where


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=BOUND)


def read_to_end(connection):
    """Read until the server closes; a server that never does fails the test by its time-out."""
    read = bytearray()
    while True:
        try:
            more = connection.recv(65536)
        except ConnectionError:
            break
        if not more:
            break
        read += more
    return bytes(read)


def wait_until(condition):
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline, "the server waits for ever"
        time.sleep(0.005)


def drip(connection, byte, until):
    """Send a byte now and then, as slow attackers do, until the server has had enough."""
    deadline = time.monotonic() + BOUND
    connection.settimeout(0.05)
    while time.monotonic() < deadline:
        try:
            connection.sendall(byte)
            more = connection.recv(65536)
        except TimeoutError:
            continue
        except ConnectionError:
            return until
        until += more
        if not more:
            return until
    raise AssertionError("the server goes on for ever")


def test_a_connection_that_says_nothing_is_closed(port):
    """An open socket costs a descriptor."""
    with connect(port) as connection:
        assert read_to_end(connection) == b""


def test_headers_that_never_end_are_cut(port):
    """A byte at a time does not make the wait longer; nor does it on a connection that was used before."""
    with connect(port) as connection:
        connection.sendall(HEAD)
        assert drip(connection, b"X", b"") == b""
    with connect(port) as connection:
        connection.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        drip(connection, b"X", b"")


def test_a_body_that_comes_too_slowly_is_408(port):
    """With the problem that says so; then the connection is closed."""
    with connect(port) as connection:
        connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
        answer = drip(connection, b"x", b"")
    assert answer.startswith(b"HTTP/1.1 408")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["type"].endswith("too-slow")


def test_a_body_that_never_comes_is_408(port):
    """Announced, and then silence."""
    with connect(port) as connection:
        connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
        assert read_to_end(connection).startswith(b"HTTP/1.1 408")


def test_a_chunked_body_that_never_ends_is_408(port):
    """Chunks of one byte, which announce no length."""
    with connect(port) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        assert drip(connection, b"1\r\nx\r\n", b"").startswith(b"HTTP/1.1 408")


def test_a_body_goes_on_after_its_answer_for_a_short_time_only(port):
    """Who is refused before the body was read cannot hold the connection with it."""
    with connect(port) as connection:
        connection.sendall(HEAD.replace(b"/echo", b"/refuse") + b"Content-Length: 100000\r\n\r\n")
        assert drip(connection, b"x", b"").startswith(b"HTTP/1.1 200")


def test_a_client_that_never_reads_is_cut(bounds):
    """An answer larger than all buffers does not stay in memory for as long as somebody likes."""
    with serving() as (port, server), connect(port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: server.server_state.connections)
        wait_until(lambda: not server.server_state.connections)


def test_a_client_that_takes_its_time_is_served(port):
    """One whose request is complete waits as long as it takes, and a steady body is not cut."""
    with connect(port) as connection:
        for _ in range(3):  # kept alive
            connection.sendall(HEAD + b"Content-Length: 300000\r\n\r\n" + b"x" * 300_000)
            answer = connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"300000" in answer
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert len(read_to_end(connection)) > LARGE


def test_requests_that_come_together_are_all_answered(port):
    """Pipelined: the bound of one does not cut the next."""
    with connect(port) as connection:
        request = HEAD + b"Content-Length: 2\r\n\r\n{}"
        last = request.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n")
        connection.sendall(request * 20 + last)
        assert read_to_end(connection).count(b"HTTP/1.1 200") == 21


def test_connections_have_a_bound(bounds, monkeypatch):
    """One too many is closed at once, those that are open go on, and room that gets free is used."""
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", BOUND)
    monkeypatch.setattr(connections, "most_connections", lambda: 3)
    with serving() as (port, server):
        held = [connect(port) for _ in range(3)]
        wait_until(lambda: len(server.server_state.connections) == 3)
        with connect(port) as refused:
            assert read_to_end(refused) == b""
        held[0].sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")
        assert held[0].recv(65536).startswith(b"HTTP/1.1 200")
        for each in held:
            each.close()
        wait_until(lambda: not server.server_state.connections)
        with connect(port) as again:
            again.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")
            assert again.recv(65536).startswith(b"HTTP/1.1 200")


def test_half_of_the_files_are_for_connections(monkeypatch):
    """The others are for what the API itself needs."""
    for soft, most in ((1024, 512), (20, 64), (connections.resource.RLIM_INFINITY, 2**31)):
        monkeypatch.setattr(connections.resource, "getrlimit", lambda _which, soft=soft: (soft, soft))
        assert connections.most_connections() == most


SMUGGLED = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5, 6\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 5 6\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Content-Length\t: 5\r\n",
        b"X: a\rContent-Length: 5\r\n",
        b"X: a\0b\r\n",
        b"Host: y\r\n",
        b"Bad Name: x\r\n",
        b": x\r\n",
        b"no colon\r\n",
    ],
)
def test_headers_that_two_servers_could_read_in_two_ways_are_400(port, head):
    """And what follows them is no request: the connection is closed behind the answer."""
    with connect(port) as connection:
        connection.sendall(HEAD + head + b"\r\n" + SMUGGLED)
        answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1") == 1


def test_of_length_and_chunks_the_chunks_count(port):
    """RFC 9112: and the connection is closed, or nothing behind it is taken for a request."""
    with connect(port) as connection:
        body = b"5\r\nhello\r\n0\r\n\r\n"
        connection.sendall(HEAD + b"Content-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
        connection.sendall(
            HEAD.replace(b"Host: x", b"Host: x\r\nConnection: close") + b"Content-Length: 0\r\n\r\n"
        )
        answer = read_to_end(connection)
    assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 400"))
    if answer.startswith(b"HTTP/1.1 200"):
        assert b'{"bytes":5}' in answer


@pytest.mark.parametrize(
    "chunk",
    [b"-1\r\n\r\n", b"0x5\r\nhello\r\n", b"5\rhello\r\n", b"FFFFFFFFFFFFFFFFFFFFF\r\n", b"5\r\nhelloXX0\r\n\r\n"],
)
def test_chunks_that_are_none_end_the_connection(port, chunk):
    """Nothing of what follows is taken for a request."""
    with connect(port) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + SMUGGLED)
        answer = read_to_end(connection)
    assert answer.count(b"HTTP/1.1") <= 1
    assert not answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "line",
    [
        b"GET\t/large\tHTTP/1.1",
        b"GET /la rge HTTP/1.1",
        b"GET /\xff HTTP/1.1",
        b"G\0T / HTTP/1.1",
        b"GET / HTTP/1.1\rX: y",
        b"PRI * HTTP/2.0",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
    ],
)
def test_request_lines_that_are_none_are_400(port, line):
    """TLS and HTTP/2 on the wrong port too."""
    with connect(port) as connection:
        connection.sendall(line + b"\r\nHost: x\r\n\r\n")
        assert read_to_end(connection).startswith((b"HTTP/1.1 400", b"HTTP/1.1 404"))


def test_headers_have_a_bound(port):
    """In bytes and in number; more is 400, and memory does not grow with it."""
    for head in (b"X: " + b"x" * 100_000 + b"\r\n", b"".join(b"X%d: y\r\n" % n for n in range(20_000))):
        with connect(port) as connection:
            try:
                connection.sendall(HEAD + head)
            except ConnectionError:
                continue  # refused before all was sent
            answer = read_to_end(connection)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 400")


def test_uvicorn_is_as_this_was_written_for():
    """The protocol stands on names that are uvicorn's own: without one of them, bounds would be silently gone."""
    for name in ("connection_made", "connection_lost", "handle_events", "on_response_complete", "pause_writing"):
        assert getattr(PatientProtocol, name) is not getattr(PatientProtocol.__base__, name)
    assert asyncio.iscoroutinefunction(uvicorn.Server.serve)
