"""What aclose and close wait for: closings that others began, and openings that hang; and for how long."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from homeloop import KeyedLoopLocal, LoopGuard, LoopLocal, LoopRuntime
from homeloop.testing import CHECKS, Subject

BOUND = 10.0  # seconds


class Slow:
    """A resource that is closed when it is told so."""

    def __init__(self) -> None:
        self.closing, self.gate = asyncio.Event(), asyncio.Event()
        self.closed = False

    async def aclose(self) -> None:
        self.closing.set()
        await self.gate.wait()
        self.closed = True


@pytest.mark.parametrize("begin", ["aclose", "eviction"])
def test_aclose_waits_for_a_closing_that_goes_on_already(begin: str, runtime: LoopRuntime) -> None:
    """Whoever began it: when aclose returns, what there was is closed."""
    keyed = KeyedLoopLocal(lambda _: Slow(), max_items=1)

    async def main() -> None:
        async with keyed("first") as first:
            pass
        if begin == "eviction":
            async with keyed("second") as second:
                second.gate.set()
        else:
            others = asyncio.create_task(keyed.aclose())
        await first.closing.wait()
        for waiting in (keyed.aclose(), keyed.aclose("first")):
            task = asyncio.create_task(waiting)
            done, _ = await asyncio.wait((task,), timeout=0.01)
            assert not done
            task.cancel()
        waiting = asyncio.create_task(keyed.aclose("first"))
        await asyncio.sleep(0)
        first.gate.set()
        await waiting
        assert first.closed
        if begin == "aclose":
            await others

    runtime.run(main, timeout=BOUND)


def test_a_resource_that_closes_its_own_kind_does_not_wait_for_itself(runtime: LoopRuntime) -> None:
    """Its closing goes on at once."""

    class Eager:
        async def aclose(self) -> None:
            await local.aclose()

    local = LoopLocal(Eager)

    async def main() -> None:
        await local.get()
        await local.aclose()

    runtime.run(main, timeout=BOUND)
    assert local.statistics().closed == 1


async def aclose(local: "LoopLocal[object]") -> None:
    await local.aclose()


async def close(local: "LoopLocal[object]") -> None:
    await asyncio.to_thread(local.close)


@pytest.mark.parametrize("end", [aclose, close])
def test_an_opening_that_hangs_is_cancelled(
    end: Callable[["LoopLocal[object]"], Awaitable[None]], runtime: LoopRuntime
) -> None:
    """After close_timeout; who waited for it gets a new one."""
    begun = asyncio.Event()

    async def connect() -> object:
        if not begun.is_set():
            begun.set()
            await asyncio.Event().wait()
        return object()

    local: LoopLocal[object] = LoopLocal(connect, close_timeout=0.02)

    async def main() -> None:
        waiting = asyncio.create_task(local.get())
        await begun.wait()
        await end(local)
        assert await waiting is await local.get()

    runtime.run(main, timeout=BOUND)
    counts = local.statistics()
    assert (counts.failed, counts.opened) == (1, 1)


def test_an_opening_that_ignores_its_cancellation_is_not_waited_for(runtime: LoopRuntime) -> None:
    """It is closed with the loop."""
    begun, gate = asyncio.Event(), asyncio.Event()

    async def connect() -> Slow:
        begun.set()
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                pass
        made = Slow()
        made.gate.set()
        return made

    local = LoopLocal(connect, close_timeout=0.02)

    async def main() -> Slow:
        waiting = asyncio.create_task(local.get())
        await begun.wait()
        await local.aclose()
        gate.set()
        return await waiting

    opened = runtime.run(main, timeout=BOUND)
    runtime.close()
    assert opened.closed


def test_the_kit_notices_a_child_that_dies() -> None:
    """A driver that takes the forked child down has not survived the fork, though nothing was raised."""
    parent = os.getpid()

    class Client:
        async def fetch(self) -> str:
            if os.getpid() != parent:
                os.kill(os.getpid(), signal.SIGKILL)
            return "row"

        async def aclose(self) -> None: ...

    guard = LoopGuard(coroutines=True)

    async def connect() -> Client:
        return guard(Client(), asyncio.get_running_loop())

    async def fetch(client: Client) -> str:
        return await client.fetch()

    subject = Subject(factory=connect, kind=Client, use=fetch, slow=fetch, entries={"fetch": fetch})
    (survives_fork,) = (check for check in CHECKS if check.__name__ == "check_survives_fork")
    with pytest.raises(AssertionError, match="died by signal 9"):
        survives_fork(subject)
