"""Bounded admission: at most so many calls in flight, and what becomes of the others."""

import asyncio
import contextvars
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


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="eager tasks came with Python 3.12")
def test_any_number_of_calls_may_wait_that_end_as_soon_as_they_begin(room: Room) -> None:
    """Also where a task runs its first step while it is made; they begin in order."""
    begun: list[int] = []

    def eager_loop() -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        return loop

    async def note(number: int) -> int:
        begun.append(number)
        return number

    with _runtime(eager_loop, "wait", size=1) as runtime:
        staying = runtime.submit(room.stay)
        room.wait_until_inside(1)
        waiting = [runtime.submit(note, number) for number in range(2000)]
        room.doors.release()
        assert [future.result(DEADLINE) for future in (staying, *waiting)] == [None, *range(2000)]
    assert begun == list(range(2000))


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


@pytest.mark.parametrize("when_full", ["wait", "refuse"])
def test_what_runs_needs_no_further_place(loop_factory, when_full: str) -> None:
    """A call that waits for calls of its own, on the loop and through workers, has one place for all of them."""

    async def depth(left: int) -> int:
        if not left:
            return 0
        if left % 2:
            return 1 + await runtime.arun(depth, left - 1, timeout=DEADLINE)
        return 1 + await asyncio.to_thread(runtime.run, depth, left - 1, timeout=DEADLINE)

    with _runtime(loop_factory, when_full, size=1) as runtime:
        assert runtime.run(depth, 9, timeout=DEADLINE) == 9
        assert runtime.run(depth, 2, timeout=DEADLINE) == 2


class Door:
    """An async context manager that can be asked."""

    async def __aenter__(self) -> "Door":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def ask(self) -> str:
        await asyncio.sleep(0)
        return "answer"


async def letters():
    for letter in "ab":
        yield letter


@pytest.mark.parametrize("when_full", ["wait", "refuse"])
def test_the_body_of_a_conversation_needs_no_further_place(loop_factory, when_full: str) -> None:
    """What is entered, or iterated, is there to be used; nested, interleaved, in whatever order they end."""
    with _runtime(loop_factory, when_full, size=1) as runtime:
        with runtime.enter(Door()) as door, runtime.enter(Door()) as other:
            assert [runtime.run(each.ask, timeout=DEADLINE) for each in (door, other)] == ["answer"] * 2
            assert list(runtime.iterate(letters)) == ["a", "b"]
        for _letter in runtime.iterate(letters):
            assert runtime.run(door.ask, timeout=DEADLINE) == "answer"
            assert asyncio.run(runtime.arun(door.ask, timeout=DEADLINE)) == "answer"
        first, second = runtime.iterate(letters), Door()
        next(first)
        entered = runtime.enter(second)
        entered.__enter__()
        first.close()
        assert runtime.run(second.ask, timeout=DEADLINE) == "answer"
        entered.__exit__(None, None, None)
        assert runtime.run(asyncio.sleep, 0, True, timeout=DEADLINE)


def test_a_conversation_holds_its_place_against_others(loop_factory) -> None:
    """Other threads wait for its end, and what inherited its context does so once it is over."""
    with _runtime(loop_factory, "refuse", size=1) as runtime, ThreadPoolExecutor(1) as threads:
        door = Door()
        with runtime.enter(door):
            inherited = contextvars.copy_context()
            assert inherited.run(runtime.run, door.ask) == "answer"
            with pytest.raises(OverloadedError):
                threads.submit(runtime.run, door.ask).result(DEADLINE)
            assert isinstance(runtime.submit(door.ask).exception(DEADLINE), OverloadedError)
        with runtime.enter(door), pytest.raises(OverloadedError):
            inherited.run(runtime.run, door.ask)


@pytest.mark.parametrize("when_full", ["wait", "refuse"])
def test_what_a_worker_iterates_needs_no_further_place(loop_factory, when_full: str) -> None:
    """The call that waits for the worker has one, also when the worker knows nothing of its context."""

    def work() -> list[str]:
        with runtime.enter(Door()) as door:
            return [*runtime.iterate(letters), runtime.run(door.ask)]

    async def ask() -> list[str]:
        return await asyncio.get_running_loop().run_in_executor(None, work)

    with _runtime(loop_factory, when_full, size=1) as runtime:
        assert runtime.run(ask, timeout=DEADLINE) == ["a", "b", "answer"]


def test_a_call_that_comes_back_through_another_runtime_needs_no_further_place(loop_factory) -> None:
    """Its context holds the place, wherever it goes; nothing of that is brought back to the caller."""
    with _runtime(loop_factory, "wait", size=1) as one, LoopRuntime(name="other") as other:

        async def come_back() -> str:
            return await one.arun(Door().ask)

        async def go() -> str:
            return await other.arun(come_back)

        before = list(contextvars.copy_context().items())
        assert one.run(go, timeout=DEADLINE) == "answer"
        assert list(contextvars.copy_context().items()) == before
