"""Bounded admission: at most so many calls in flight, and what becomes of the others."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from homeloop import LoopRuntime
from homeloop.errors import OverloadedError

DEADLINE = 60.0  # seconds; tells a hang from an answer


class Room:
    """Something to be in, and to be let out of."""

    def __init__(self) -> None:
        self.doors = threading.Semaphore(0)
        self.inside = threading.Semaphore(0)
        self.most = self._now = 0

    async def stay(self) -> None:
        self._now += 1
        self.most = max(self.most, self._now)
        self.inside.release()
        await asyncio.to_thread(self.doors.acquire, timeout=DEADLINE)
        self._now -= 1

    def wait_until_inside(self, count: int) -> None:
        for _ in range(count):
            assert self.inside.acquire(timeout=DEADLINE)


@pytest.fixture
def room() -> Iterator[Room]:
    """A room whose doors are open at the end."""
    room = Room()
    yield room
    room.doors.release(1000)


def _runtime(loop_factory, when_full: str, size: int = 2) -> LoopRuntime:
    return LoopRuntime(name="bounded", loop_factory=loop_factory, max_in_flight=size, when_full=when_full)


def test_a_full_runtime_refuses(loop_factory, room: Room) -> None:
    """Every kind of call is refused with the number, none is begun; a place that is free again is given again."""
    ran: list[str] = []

    async def note(who: str) -> None:
        ran.append(who)

    with _runtime(loop_factory, "refuse") as runtime, ThreadPoolExecutor(2) as threads:
        staying = [threads.submit(runtime.run, room.stay) for _ in range(2)]
        room.wait_until_inside(2)
        with pytest.raises(OverloadedError, match="'bounded' has 2 calls in flight"):
            runtime.run(note, "run")
        assert isinstance(runtime.submit(note, "submit").exception(DEADLINE), OverloadedError)
        with pytest.raises(OverloadedError):
            asyncio.run(runtime.arun(note, "arun"))
        room.doors.release(2)
        for each in staying:
            each.result(DEADLINE)
        runtime.run(note, "later")
    assert ran == ["later"]


def test_callers_of_a_full_runtime_wait(loop_factory, room: Room) -> None:
    """All of them have their turn, never more than so many at once."""
    with _runtime(loop_factory, "wait") as runtime, ThreadPoolExecutor(20) as threads:
        staying = [threads.submit(runtime.run, room.stay) for _ in range(20)]
        room.wait_until_inside(2)
        assert runtime.statistics().in_flight == 2
        room.doors.release(20)
        for each in staying:
            each.result(DEADLINE)
    assert room.most == 2


def test_a_coroutine_waits_for_a_place_without_blocking_its_loop(loop_factory, room: Room) -> None:
    """arun() gives way while the runtime is full."""

    async def main(runtime: LoopRuntime) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(runtime.arun(room.stay))
            await asyncio.to_thread(room.wait_until_inside, 1)
            room.doors.release(3)

    with _runtime(loop_factory, "wait", size=1) as runtime:
        asyncio.run(main(runtime))
    assert room.most == 1


def test_a_timeout_ends_the_waiting_for_a_place(loop_factory, room: Room) -> None:
    """The work budget counts from the call; what never began needs no clean-up."""
    with _runtime(loop_factory, "wait", size=1) as runtime, ThreadPoolExecutor(1) as threads:
        staying = threads.submit(runtime.run, room.stay)
        room.wait_until_inside(1)
        with pytest.raises(TimeoutError):
            runtime.run(room.stay, timeout=0.05)
        room.doors.release(2)
        staying.result(DEADLINE)
        runtime.run(asyncio.sleep, 0, timeout=DEADLINE)  # the place is free
    assert room.most == 1


@pytest.mark.parametrize("options", [{"max_in_flight": 0}, {"max_in_flight": 1, "when_full": "panic"}])
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    """Where they are given."""
    with pytest.raises(ValueError, match=next(reversed(options))):
        LoopRuntime(**options)  # type: ignore[arg-type]
