"""F2 to F5, the live page: served by threads without a loop, to those alone who know the token."""

import errno
import http.client
import json
import logging
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from homeloop import HealthMonitor, HealthPage, HealthThresholds, LoopRuntime, local_processes
from homeloop.cli import main
from homeloop.health import _http

BOUND = 20.0  # seconds
Start = Callable[[str], "subprocess.Popen[str]"]
STATIC = Path(_http.__file__).with_name("static")

BLOCKED = """
import asyncio, os, signal, sys, threading, time
import homeloop

homeloop.default_monitor().start(0.2)
print(homeloop.default_monitor().serve().address, file=sys.stderr, flush=True)
over = threading.Event()
runtimes = [homeloop.LoopRuntime(name=name) for name in ("one", "two")]

async def block():
    over.wait()

for runtime in runtimes:
    runtime.submit(block)

async def main():
    homeloop.default_monitor().watch_loop(name="main")
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)  # it would wait for the blocked loops

asyncio.run(main())
"""


def get(page: HealthPage, path: str = "/events", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Ask for something whose answer ends; return status, headers and body."""
    with closing(http.client.HTTPConnection("127.0.0.1", page.port, timeout=BOUND)) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


class Follower:
    """Somebody who follows a process, and takes what is told."""

    def __init__(self, port: int, token: str, pid: object = "") -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=BOUND)
        self.connection.request("GET", f"/events?pid={pid}", headers={"Authorization": f"Bearer {token}"})
        self.answer = self.connection.getresponse()

    def next(self) -> dict[str, Any]:
        """Return what is told next; fail if nothing is, in time."""
        while not (line := self.answer.readline()).startswith(b"data: "):
            assert line, "nobody tells any more"
        told: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
        return told

    def see(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first thing that is told and is wanted; fail if none of many is."""
        for _ in range(30):
            if wanted(told := self.next()):
                return told
        pytest.fail(f"not seen; the last was {told}")

    def close(self) -> None:
        """Leave."""
        self.answer.close()
        self.connection.close()


def follow(served: HealthPage | str, pid: object = "") -> "closing[Follower]":
    """Follow a page, or the one at an address."""
    if isinstance(served, HealthPage):
        return closing(Follower(served.port, served.token, pid))
    port, token = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/#token=([\w-]+)\n?", served).groups()  # type: ignore[union-attr]
    return closing(Follower(int(port), token, pid))


@pytest.fixture
def page(patient: HealthMonitor) -> Iterator[HealthPage]:
    """A page of this process."""
    patient.start(0.1)
    served = patient.serve()
    yield served
    assert served.stop()
    assert not served.is_started


def test_f3_the_page_is_told_of_everything(page: HealthPage, runtime: LoopRuntime) -> None:
    """Report, tasks, jobs, threads, the last minutes: what the browser shows, again and again."""
    runtime.start()
    with follow(page) as follower:
        told = follower.see(lambda told: bool(told["process"]["report"]["loops"]))
        assert follower.next()["process"]["pid"] == os.getpid()
    assert [each["pid"] for each in told["processes"]] == [os.getpid()]
    detail = told["process"]
    assert detail["state"] == "answered"
    assert detail["report"]["loops"][0]["name"] == "test"
    assert detail["report"]["command"]
    assert detail["thresholds"]["tasks"] == 50
    assert "homeloop-health-page" in [thread["name"] for thread in detail["threads"]]
    assert set(detail["history"]) == {str(loop["home"]["loop"]) for loop in detail["report"]["loops"]}
    assert detail["tasks"]["trees"] == []


def test_what_the_page_needs_is_in_the_package(page: HealthPage) -> None:
    """Each file is served with its type, loads nothing from elsewhere, has no secret and needs no token."""
    files = sorted(path.name for path in STATIC.iterdir())
    assert {"index.html", "style.css", "main.js", "icon.svg"} <= set(files)
    for name in ("", *files):
        status, headers, body = get(page, f"/{name}")
        assert status == 200
        assert body == (STATIC / (name or "index.html")).read_bytes()
        assert page.token.encode() not in body
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert not re.search(rb"https?://(?!www\.w3\.org/2000/svg)", body)
    assert get(page, "/../_page.py")[0] == 404
    assert get(page, "/_page.py")[0] == 404


def test_without_the_token_nothing_is_told(page: HealthPage, caplog: pytest.LogCaptureFixture) -> None:
    """Missing, wrong, or in the address, where logs and proxies would see it: refused."""
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {page.token}"},
                    {"Authorization": "Bearer \xff"}, {"Authorization": f"Bearer {page.token}x"}):  # fmt: skip
        status, answered, body = get(page, "/events", **headers)
        assert (status, body) == (401, b"the token is missing or wrong\n")
        assert answered["WWW-Authenticate"] == "Bearer"
    assert get(page, f"/events?token={page.token}")[0] == 401
    with follow(page) as follower:
        assert follower.next()


def test_the_token_is_in_no_log(patient: HealthMonitor, caplog: pytest.LogCaptureFixture) -> None:
    """The address is logged, the token is not; in the printed address it stands where no server sees it."""
    caplog.set_level(logging.DEBUG)
    page = patient.serve(token="correct-horse-battery")
    with follow(page) as follower:
        follower.next()
    assert page.address == f"http://127.0.0.1:{page.port}/#token=correct-horse-battery"
    assert f"http://127.0.0.1:{page.port}" in caplog.text
    assert "correct-horse-battery" not in caplog.text


@pytest.mark.parametrize("token", ["short", "sixteen letters!", "sixteen&letters="])
def test_a_token_that_is_none_is_refused(patient: HealthMonitor, token: str) -> None:
    """Too short, or nothing that an address holds as it is."""
    with pytest.raises(ValueError, match="a token has 16 letters"):
        patient.serve(token=token)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421),
        ("evil.example:{port}", 421),
        ("localhost.evil.example:{port}", 421),
        ("", 421),
        ("localhost:{port}", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:{port}", 200),
        ("[::1]:{port}", 200),
        ("health.internal", 200),
    ],
)
def test_a_foreign_name_is_refused(patient: HealthMonitor, host: str, status: int) -> None:
    """A site whose name is resolved to this machine gets nothing, not even the page."""
    page = patient.serve(names=["health.internal"])
    assert get(page, "/", Host=host.format(port=page.port))[0] == status


def send(page: HealthPage, request: bytes) -> bytes:
    """Send bytes; return all that is answered."""
    with socket.create_connection(("127.0.0.1", page.port), timeout=BOUND) as visitor:
        visitor.sendall(request)
        parts: list[bytes] = []
        while part := visitor.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_requests_that_are_none_are_refused(page: HealthPage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It only reads, and understands HTTP alone."""
    assert send(page, b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.1 405 ")
    assert send(page, b"hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert send(page, b"GET http://[/ HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert send(page, b"GET //[ HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    twice = b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
    assert send(page, twice).startswith(b"HTTP/1.1 400 ")
    assert send(page, b"GET / HTTP/1.1\r\n" + b"x" * 9000).startswith(b"HTTP/1.1 431 ")
    told = send(page, b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 200 ")
    assert told.endswith(b"\r\n\r\n")
    for pid in ("x", "-1", "9" * 30, "%D9%A3"):
        assert get(page, f"/events?pid={pid}", Authorization=f"Bearer {page.token}")[0] == 404

    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(page, "_is_known", fails)
    assert send(page, b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 500 ")


def test_f3_it_answers_while_every_loop_is_blocked(
    start_process: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two runtimes' loops and the main thread's: each is named, and what blocks it."""
    start_process(BLOCKED)
    with follow(address_told(capfd)) as follower:
        told = follower.see(
            lambda told: all(loop["stall"] is not None for loop in told["process"]["report"]["loops"])
        )
    loops = {loop["name"]: loop for loop in told["process"]["report"]["loops"]}
    assert set(loops) == {"one", "two", "main"}
    assert all(loop["state"] == "blocked" for loop in loops.values())
    assert any("in block" in frame for frame in loops["one"]["stall"]["blocked_at"])
    assert told["process"]["history"][str(loops["one"]["home"]["loop"])]["lag"][-1][1] > 0
    assert told["process"]["report"]["status"] == "critical"


def address_told(capfd: pytest.CaptureFixture[str]) -> str:
    """Return the address that a process has printed on stderr before it was ready."""
    told = capfd.readouterr().err
    found = re.search(r"^http://\S+", told, re.MULTILINE)
    assert found, told
    return found[0]


def test_visitors_that_never_read_or_ask_do_not_hurt(page: HealthPage, runtime: LoopRuntime) -> None:
    """Fifty who follow and take nothing, fifty who ask for nothing: the next one is answered as ever."""
    runtime.start()
    request = f"GET /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {page.token}\r\n\r\n".encode()
    with ExitStack() as stuck:
        for number in range(100):
            visitor = stuck.enter_context(socket.create_connection(("127.0.0.1", page.port), timeout=BOUND))
            if number % 2:
                visitor.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
                visitor.sendall(request)
        with follow(page) as follower:
            for _ in range(3):
                follower.next()
        assert get(page, "/")[0] == 200


def test_a_visitor_that_takes_nothing_is_let_go(page: HealthPage, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while, as is one that asks for nothing: what they hold is bounded in time, too."""
    monkeypatch.setattr(_http, "_TAKING", 0.2)
    monkeypatch.setattr(_http, "_ASKING", 0.2)
    monkeypatch.setattr(_http, "_SWEEP", 0.05)
    with socket.create_connection(("127.0.0.1", page.port), timeout=BOUND) as silent:
        assert silent.recv(1) == b""
    server = page._server
    assert server is not None
    with socket.create_connection(("127.0.0.1", page.port), timeout=BOUND) as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        stuck.sendall(
            f"GET /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {page.token}\r\n\r\n".encode()
        )
        assert stuck.recv(12) == b"HTTP/1.1 200"
        while server._visitors:  # bounded by the test's own time limit
            server.publish({"": b"data: " + b"x" * 10_000_000 + b"\n\n"})


def test_there_is_a_limit_to_visitors(page: HealthPage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it those go first who have not asked yet, the oldest of them; followers are not sent away for it."""
    monkeypatch.setattr(_http, "_MOST_VISITORS", 2)
    with follow(page) as follower, socket.create_connection(("127.0.0.1", page.port), timeout=BOUND) as silent:
        follower.next()
        assert get(page, "/")[0] == 200
        assert silent.recv(1) == b""
        with follow(page) as another:
            another.next()
            with socket.create_connection(("127.0.0.1", page.port), timeout=BOUND) as third:
                assert third.recv(1) == b""
            assert follower.next()
            assert another.next()


def test_without_descriptors_it_rests(
    patient: HealthMonitor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who is inside is told as ever; who waits outside keeps no core busy, and is let in later."""
    tries: list[float] = []
    exhausted = threading.Event()
    refused = threading.Event()

    class Exhausted(socket.socket):
        def accept(self) -> tuple[socket.socket, Any]:
            tries.append(time.monotonic())
            if exhausted.is_set():
                refused.set()
                raise OSError(errno.EMFILE, "no descriptors")
            return super().accept()

    monkeypatch.setattr(_http, "real_socket", lambda: SimpleNamespace(**{**vars(socket), "socket": Exhausted}))
    monkeypatch.setattr(_http, "_REST", 3600.0)
    page = patient.serve()
    with follow(page) as inside:
        inside.next()
        exhausted.set()
        with socket.create_connection(("127.0.0.1", page.port), timeout=BOUND) as outside:
            assert refused.wait(BOUND)
            before = len(tries)
            for _ in range(3):
                inside.next()  # each is a turn of the server
            assert len(tries) == before == 2
            exhausted.clear()
            server = page._server
            assert server is not None
            monkeypatch.setattr(_http, "_SWEEP", 0.01)
            server._rests_until = 0.0
            outside.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert outside.recv(12) == b"HTTP/1.1 200"
    assert "the health page lets nobody in for 3600 s" in caplog.text


def test_served_anew_it_gathers_nothing_until_somebody_looks() -> None:
    """Those who looked before are gone, though they did not leave."""
    asked: list[int] = []

    def own() -> dict[str, Any]:
        asked.append(1)
        return {"report": {}}

    page = HealthPage(own)
    with page, follow(page) as follower:
        follower.next()
        page.stop()
    asked.clear()
    with page:
        page._look()
    assert asked == []


def test_limits_that_are_none_can_be_told(patient: HealthMonitor, runtime: LoopRuntime) -> None:
    """JSON has no infinity, by which a finding is switched off."""
    patient.thresholds = HealthThresholds(blocked=60.0, lag=math.inf, utilisation=math.inf, tasks=50)
    patient.start(0.1)
    runtime.start()
    with follow(patient.serve()) as follower:
        limits = follower.see(lambda told: bool(told["process"]["report"]["loops"]))["process"]["thresholds"]
    assert (limits["lag"], limits["utilisation"], limits["tasks"]) == (None, None, 50)


def test_many_look_at_the_same_time(page: HealthPage, runtime: LoopRuntime) -> None:
    """Each is told the same, which is gathered once."""
    runtime.start()
    with ExitStack() as followers:
        many = [followers.enter_context(follow(page)) for _ in range(30)]
        assert {each.next()["process"]["pid"] for each in many} == {os.getpid()}


FORKS = """
import os, sys, time
import homeloop

monitor = homeloop.default_monitor()
monitor.start(0.2)
page = monitor.serve()
print(page.address, file=sys.stderr, flush=True)

async def nothing(): pass

homeloop.run(nothing)
print("ready", flush=True)
sys.stdin.readline()
reader, writer = os.pipe()
child = os.fork()
if not child:
    assert not page.is_started and page.stop()
    homeloop.run(nothing)
    print(f"{os.getpid()}", flush=True)
    os.read(reader, 1)
    os._exit(0)
sys.stdin.readline()
page.stop()
print("stopped", flush=True)
sys.stdin.readline()
os.write(writer, b"!")
os.waitpid(child, 0)
"""


def test_a_forked_child_shows_on_its_parents_page_and_serves_none(
    start_process: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    """The parent goes on to serve; the child holds none of its sockets open, and is a process of its own."""
    process = start_process(FORKS)
    assert process.stdin is not None
    assert process.stdout is not None
    address = address_told(capfd)
    with follow(address) as before:
        before.next()
        process.stdin.write("\n")
        process.stdin.flush()
        child = int(process.stdout.readline())
        told = before.see(lambda told: len(told["processes"]) == 2)
        assert [each["pid"] for each in told["processes"]] == [process.pid, child]
        assert told["processes"][1]["parent"] == process.pid
        with follow(address, child) as another:
            told = another.see(lambda told: told["process"]["state"] == "answered")
            assert (told["process"]["pid"], told["process"]["report"]["pid"]) == (child, child)
        os.kill(child, signal.SIGSTOP)
        told = before.see(lambda told: told["processes"][1]["state"] == "stopped")
        with follow(address, child) as another:
            assert another.next()["process"] == {"pid": child, "state": "stopped"}
            os.kill(child, signal.SIGCONT)
            another.see(lambda told: told["process"]["state"] == "answered")
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "stopped\n"
        while before.answer.readline():  # it ends, though the child lives
            pass
    process.communicate("\n", timeout=BOUND)
    assert process.returncode == 0


def test_f3_a_stopped_process_is_told_by_another_ones_page(start_process: Start) -> None:
    """Its own cannot; one that runs elsewhere can, and tells again how it is once it goes on."""
    process = start_process(BLOCKED)
    with HealthPage(pid=process.pid) as page, follow(page) as follower:
        told = follower.see(lambda told: told["process"]["state"] == "answered")
        process.send_signal(signal.SIGSTOP)
        told = follower.see(lambda told: told["process"]["state"] == "stopped")
        told = follower.see(lambda told: told["processes"][0]["state"] == "stopped")
        assert " -c " in told["processes"][0]["command"], "the system tells it"
        process.send_signal(signal.SIGCONT)
        follower.see(lambda told: told["process"]["state"] == "answered")
        process.kill()
        process.wait(BOUND)
        told = follower.see(lambda told: told["process"]["state"] == "gone")
        assert follower.see(lambda told: told["processes"] == [])


def test_without_any_process_it_says_so(run_dir: Path) -> None:
    """A page of other processes, of which there are none; or whose folder is not the user's alone."""
    with HealthPage() as page, follow(page) as follower:
        assert follower.next() == {"processes": [], "process": None}
        run_dir.chmod(0o755)
        assert follower.next() == {"processes": [], "process": None}
        with follow(page, 4711) as another:
            told = another.next()["process"]
    run_dir.chmod(0o700)
    assert told == {"pid": 4711, "state": "silent"}


def test_it_is_served_once_and_its_port_is_free_afterwards(patient: HealthMonitor) -> None:
    """A second one is refused by the monitor, and by the system on the same port; stop lets go of both."""
    page = patient.serve()
    page.start()  # does nothing
    with pytest.raises(RuntimeError, match="served already"):
        patient.serve()
    with pytest.raises(OSError, match="in use"):
        HealthPage(port=page.port).start()
    assert page.stop()
    assert page.stop()
    again = patient.serve(page.port)
    assert again.port == page.port
    assert get(again, "/")[0] == 200
    assert patient.stop()
    assert not again.is_started


def test_ipv6_is_written_with_brackets() -> None:
    """In the address."""
    try:
        with HealthPage(host="::1") as page:
            assert page.address.startswith(f"http://[::1]:{page.port}/#token=")
    except OSError:
        pytest.skip("this machine has no IPv6")


GREEN = """
import sys
from gevent import monkey
monkey.patch_all()
import gevent, homeloop
homeloop.default_monitor().start(0.2)
print(homeloop.default_monitor().serve().address, file=sys.stderr, flush=True)
async def nothing(): pass
homeloop.run(nothing)
print("ready", flush=True)
import os
os.read(0, 1)  # blocks the hub, and every greenlet with it
"""


def test_it_answers_while_the_hub_of_greenlets_is_blocked(
    start_process: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its threads are the system's also in a patched process."""
    start_process(GREEN)
    with follow(address_told(capfd)) as follower:
        assert follower.next()["process"]["report"]["loops"][0]["name"] == "homeloop"
        assert follower.next()


def test_homeloop_page_serves_until_it_is_told_to_end(start_process: Start, run_dir: Path) -> None:
    """It prints the address with the token; SIGTERM and Ctrl-C end it without a word."""
    process = start_process(BLOCKED)
    for ended_by, code in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
        command = [sys.executable, "-m", "homeloop", "page", str(process.pid)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as serving:
            try:
                assert serving.stdout is not None
                address = serving.stdout.readline()
                assert address.endswith(f"&pid={process.pid}\n")
                with follow(address.replace(f"&pid={process.pid}", "")) as follower:
                    assert follower.next()["process"]["pid"] == process.pid
                serving.send_signal(ended_by)
                _, errors = serving.communicate(timeout=BOUND)
            finally:
                serving.kill()
        assert (serving.returncode, errors) == (code, "")


def test_homeloop_page_says_what_is_wrong(
    start_process: Start, capsys: pytest.CaptureFixture[str], run_dir: Path
) -> None:
    """A process that has no monitor; a port that is taken, or none."""
    assert main(["page", "1"]) == 2
    assert "process 1 has no health monitor that can be asked" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["page", "--port", str(taken.getsockname()[1])]) == 2
    assert "in use" in capsys.readouterr().err
    assert main(["page", "--port", "99999"]) == 2
    assert "homeloop page: " in capsys.readouterr().err


def test_all_processes_are_asked_at_the_same_time(run_dir: Path) -> None:
    """So one that is silent keeps nobody from telling: two that answer when both were asked, and not before."""
    both_asked = threading.Barrier(2)
    pids = (os.getpid(), os.getppid())

    def answer(listener: socket.socket, pid: int) -> None:
        visitor, _ = listener.accept()
        with visitor:
            visitor.recv(64)
            both_asked.wait(BOUND)
            visitor.sendall(json.dumps({"pid": pid}).encode())

    with ExitStack() as opened:
        for pid in pids:
            listener = opened.enter_context(closing(socket.socket(socket.AF_UNIX)))
            listener.bind(str(run_dir / f"{pid}.sock"))
            listener.listen()
            thread = threading.Thread(target=answer, args=(listener, pid))
            opened.callback(thread.join, BOUND)
            thread.start()
        told = local_processes(timeout=BOUND)
    assert {each.pid: each.report for each in told} == {pid: {"pid": pid} for pid in pids}
