"""Names whose servers never answer: they hold nobody's threads but those that are there for names."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from homeloop import LoopRuntime
from workflow_service.bootstrap import look_up_on
from workflow_service.external.addresses import AddressPolicy, GuardedTransport
from workflow_service.testing.providers import ProviderServer

Run = Callable[[Callable[[], Awaitable[Any]]], Any]
HOSTILE = min(32, (os.cpu_count() or 1) + 4)  # names: as many as an executor has threads
BOUND = 20.0  # seconds

STUCK_AT_THE_END = """
import asyncio, socket, sys, threading
import httpx
from homeloop import LoopRuntime
from workflow_service.bootstrap import look_up_on
from workflow_service.external.addresses import AddressPolicy, GuardedTransport
socket.getaddrinfo = lambda *_args, **_options: threading.Event().wait()

async def main():
    transport = GuardedTransport(AddressPolicy((), look_up_on(names)))
    async with httpx.AsyncClient(transport=transport, timeout=0.1) as client:
        try:
            await client.get("http://tarpit.test/")
        except httpx.ConnectTimeout as error:
            print(error)

names = LoopRuntime(name="names")
asyncio.run(main())
"""


@dataclass
class Tarpit:
    """A resolver that answers for names of ``.good``, and for no other one before it is told to."""

    gate: threading.Event = field(default_factory=threading.Event)
    asked: "list[str]" = field(default_factory=list)


@pytest.fixture
def tarpit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tarpit]:
    """In place of the system's; afterwards all its threads go on."""
    pit = Tarpit()

    def getaddrinfo(host: str, port: int, *_args: Any, **_options: Any) -> list[Any]:
        pit.asked.append(host)
        if not host.endswith(".good"):
            pit.gate.wait(2 * BOUND)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield pit
    pit.gate.set()


@pytest.fixture
def names() -> Iterator[LoopRuntime]:
    """A runtime for names; its threads are gone afterwards."""
    runtime = LoopRuntime(name="names under test")
    yield runtime
    runtime.close()
    deadline = time.monotonic() + BOUND
    while [each for each in threading.enumerate() if each.name.startswith("names under test")]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_names_that_are_not_resolved_hold_no_thread_of_the_loop(
    tarpit: Tarpit, names: LoopRuntime, run: Run, providers: ProviderServer
) -> None:
    """Each ends within its time, addresses are connected to meanwhile, and names again once they are answered."""
    port = urlsplit(providers.address).port
    policy = AddressPolicy(["127.0.0.1"], look_up_on(names))

    async def ask(client: httpx.AsyncClient, host: str) -> int:
        return (await client.get(f"http://{host}:{port}/control")).status_code

    async def scenario() -> None:
        async with httpx.AsyncClient(transport=GuardedTransport(policy), timeout=0.3) as hasty:
            hostile = [f"{number}.tarpit.test" for number in range(2 * HOSTILE)]
            ends = await asyncio.gather(*(ask(hasty, host) for host in hostile), return_exceptions=True)
            assert {type(end) for end in ends} == {httpx.ConnectTimeout}
            assert "was not resolved within 0.3 s: the name servers do not answer" in str(ends[0])
        assert len(tarpit.asked) == HOSTILE, "who waits for a thread is not asked for once its time is over"
        async with httpx.AsyncClient(transport=GuardedTransport(policy), timeout=BOUND) as patient:
            async with asyncio.timeout(BOUND):
                assert await asyncio.to_thread(threading.get_ident) != threading.get_ident()
            assert await ask(patient, "127.0.0.1") == 200
            waiting = asyncio.create_task(ask(patient, "provider.good"))
            tarpit.gate.set()
            assert await waiting == 200

    run(scenario)


def test_a_cancelled_call_leaves_the_resolver_behind_at_once(tarpit: Tarpit, names: LoopRuntime, run: Run) -> None:
    """Its thread goes on alone; closing waits for it no longer than it is told to."""

    async def scenario() -> None:
        call = asyncio.create_task(AddressPolicy((), look_up_on(names)).resolve("tarpit.test", 80))
        while not tarpit.asked:  # noqa: ASYNC110  another thread asks
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    run(scenario)
    assert not tarpit.gate.is_set()
    names.close(0.1)
    tarpit.gate.set()


def test_a_thread_that_is_stuck_keeps_no_process_from_ending() -> None:
    """Nor does it say anything at the end."""
    ended = subprocess.run(
        [sys.executable, "-c", STUCK_AT_THE_END], capture_output=True, text=True, timeout=BOUND * 2, check=False
    )
    assert (ended.returncode, ended.stdout) == (
        0,
        "tarpit.test was not resolved within 0.1 s: the name servers do not answer\n",
    )
    assert "Traceback" not in ended.stderr
