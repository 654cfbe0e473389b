"""The conformance kit: what a guarded resource of any product must do, as checks that need no test framework."""

import asyncio
import gc
import inspect
import os
import warnings
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import homeloop
from homeloop import LoopLocal, LoopRuntime
from homeloop.errors import WrongLoopError

T = TypeVar("T")
P = TypeVar("P")

_BOUND = 20.0
"""Seconds that one step may take; a driver that waits for ever on a strange loop is found by it. A guess."""


@dataclass(frozen=True, slots=True)
class Part(Generic[T, P]):
    """
    Something that is got from a resource, and could be carried to another loop: a connection, a cursor.

    Attributes:
        open: Gets it, for as long as the context manager is entered.
        entries: What a stranger may try with it, by name; each must be refused.
        use: What its owner does with it after the strangers have tried, to see that it is unharmed.
    """

    open: Callable[[T], AbstractAsyncContextManager[P]]
    entries: Mapping[str, Callable[[P], object]]
    use: Callable[[P], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject(Generic[T]):
    """
    A resource to be checked: how it is made, used, and misused.

    Attributes:
        factory: What `LoopLocal` is given.
        kind: The class that the resource must stay an instance of.
        use: A short use that gives an equal result every time.
        entries: What a stranger may try, by name; each must be refused. Called on the stranger's loop;
            what it returns is awaited if it can be.
        slow: A use that takes long enough to be cancelled.
        parts: What can be got from the resource, by name.
        close: What `LoopLocal` is given to close it with, if it needs that.
        max_users: How many tasks of its loop may use it at the same time.
    """

    factory: Callable[[], Any]
    kind: type[T]
    use: Callable[[T], Awaitable[object]]
    entries: Mapping[str, Callable[[T], object]]
    slow: Callable[[T], Awaitable[object]]
    parts: Mapping[str, Part[T, Any]] = field(default_factory=dict[str, Part[T, Any]])
    close: Callable[[T], Awaitable[object]] | None = None
    max_users: int = 20

    def local(self) -> LoopLocal[T]:
        """Return a `LoopLocal` of it, with nothing open."""
        return LoopLocal(self.factory, close=self.close, name=f"{self.kind.__name__} under test")


def check_keeps_its_kind(subject: Subject[Any]) -> None:
    """What is handed out is an instance of its class, one per loop; the class itself is as it was."""
    before = dict(vars(subject.kind))
    local = subject.local()

    async def see() -> tuple[object, object]:
        first, second = await local.get(), await local.get()
        assert first is second, "the same loop was given two objects"
        assert isinstance(first, subject.kind), f"{type(first)} is no {subject.kind}"
        return first, await subject.use(first)

    with _Reports() as reports, LoopRuntime(name="one") as one, LoopRuntime(name="other") as other:
        (first, result), (second, same) = (runtime.run(see, timeout=_BOUND) for runtime in (one, other))
    assert reports.failures == [], f"not guarded, or not closed: {reports.failures}"
    assert first is not second, "two loops were given the same object"
    assert result == same, f"the same use gave {result!r} and {same!r}"
    assert dict(vars(subject.kind)) == before, f"{subject.kind} was changed for everybody"


def check_refuses_another_live_loop(subject: Subject[Any]) -> None:
    """Every entry raises `WrongLoopError` naming both loops, and the owner's next use works."""
    local = subject.local()

    async def offer(owner: LoopRuntime, stranger: LoopRuntime) -> None:
        value = await local.get()
        expected = await subject.use(value)
        for name, entry in subject.entries.items():
            await _refused(owner, stranger, name, entry, value)
        assert await subject.use(value) == expected

    with LoopRuntime(name="owner") as owner, LoopRuntime(name="stranger") as stranger:
        owner.run(offer, owner, stranger, timeout=_BOUND)


def check_refuses_with_its_parts(subject: Subject[Any]) -> None:
    """Every part refuses too, and its owner can go on using it."""
    local = subject.local()

    async def offer(owner: LoopRuntime, stranger: LoopRuntime) -> None:
        value = await local.get()
        for part_name, part in subject.parts.items():
            async with part.open(value) as got:
                for name, entry in part.entries.items():
                    await _refused(owner, stranger, f"{part_name}, {name}", entry, got)
                await part.use(got)
        await subject.use(value)

    with LoopRuntime(name="owner") as owner, LoopRuntime(name="stranger") as stranger:
        owner.run(offer, owner, stranger, timeout=_BOUND)


def check_refuses_a_later_loop(subject: Subject[Any]) -> None:
    """What one ``asyncio.run`` was given is refused in the next one, which gets its own and can use it."""
    local = subject.local()
    kept: list[Any] = []

    async def main() -> object:
        for entry in subject.entries.values() if kept else ():
            try:
                await _call(entry, kept[0])
            except WrongLoopError:
                continue
            raise AssertionError("what belongs to a closed loop was not refused")
        value = await local.get()
        kept.append(value)
        return await subject.use(value)

    results = [asyncio.run(_bounded(main())) for _ in range(3)]
    assert results[1:] == results[:-1], f"the same use gave {results}"
    assert len({id(value) for value in kept}) == 3, "a loop was given what had been another's"


def check_works_on_two_loops_at_once(subject: Subject[Any]) -> None:
    """Many tasks on two live loops use it at the same time, without an error."""
    local = subject.local()

    async def use() -> object:
        return await subject.use(await local.get())

    async def many() -> list[object]:
        return await asyncio.gather(*(use() for _ in range(subject.max_users)))

    with LoopRuntime(name="one") as one, LoopRuntime(name="other") as other:
        results = [result for future in (one.submit(many), other.submit(many)) for result in future.result(_BOUND)]
    assert all(result == results[0] for result in results), f"the same use gave {results}"
    assert local.statistics().opened == 2, "more than one was opened on a loop"


def check_closes_on_its_loop(subject: Subject[Any]) -> None:
    """It is closed once, before its loop ends, on our loops and on those of others, without a warning."""
    local = subject.local()

    async def main() -> None:
        await subject.use(await local.get())

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        with _Reports() as reports:
            asyncio.run(_bounded(main()))
            with LoopRuntime(name="owner") as owner:
                owner.run(main, timeout=_BOUND)
            gc.collect()
    leaks = [str(each.message) for each in caught if issubclass(each.category, ResourceWarning)]
    assert leaks == [], f"left open: {leaks}"
    assert reports.failures == [], f"not closed: {reports.failures}"
    counts = local.statistics()
    assert (counts.opened, counts.closed, counts.live) == (2, 2, 0), f"{counts}"


def check_survives_cancellation(subject: Subject[Any]) -> None:
    """A use that is cancelled half-way takes nothing with it: the next use works."""
    local = subject.local()

    async def main() -> None:
        value = await local.get()
        expected = await subject.use(value)
        slow = asyncio.ensure_future(_call(subject.slow, value))
        done, _ = await asyncio.wait((slow,), timeout=0.1)
        assert not done, f"it was not slow, or failed: {slow}"
        slow.cancel()
        await asyncio.wait((slow,), timeout=_BOUND)
        assert slow.cancelled(), f"its cancellation was not passed on: {slow}"
        assert await subject.use(value) == expected

    with LoopRuntime(name="owner") as owner:
        owner.run(main, timeout=_BOUND)


def check_survives_fork(subject: Subject[Any]) -> None:
    """A forked child is refused the parent's and opens its own; the parent's goes on working."""
    if not hasattr(os, "fork"):
        return
    local = subject.local()

    async def use() -> object:
        return await subject.use(await local.get())

    with LoopRuntime(name="owner") as owner:
        value = owner.run(local.get, timeout=_BOUND)
        expected = owner.run(subject.use, value, timeout=_BOUND)

        async def in_child() -> None:
            for name, entry in subject.entries.items():
                await _refused_here(name, entry, value)
            assert await use() == expected

        def child() -> None:
            owner.run(in_child, timeout=_BOUND)
            owner.close()

        complaint = _in_child(child)
        assert not complaint, f"in a forked child: {complaint}"
        assert owner.run(subject.use, value, timeout=_BOUND) == expected


CHECKS: tuple[Callable[[Subject[Any]], None], ...] = (
    check_keeps_its_kind,
    check_refuses_another_live_loop,
    check_refuses_with_its_parts,
    check_refuses_a_later_loop,
    check_works_on_two_loops_at_once,
    check_closes_on_its_loop,
    check_survives_cancellation,
    check_survives_fork,
)
"""Every check, for parametrized tests: each takes a `Subject`, raises `AssertionError`, leaves nothing open."""


def check_all(subject: Subject[Any]) -> None:
    """Make every check, one after the other. Thread: one that runs no loop."""
    for check in CHECKS:
        check(subject)


class _Reports:
    """Hears of resources that did not close, for as long as it is entered."""

    def __init__(self) -> None:
        self.failures: list[homeloop.Event] = []

    def notify(self, event: homeloop.Event) -> None:
        if type(event).__name__ in ("ResourceCloseFailed", "ResourceDropped", "GuardFailed", "TaskLeft"):
            self.failures.append(event)

    def __enter__(self) -> "_Reports":
        self._remove = homeloop.add_instrument(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()


async def _call(entry: Callable[[Any], object], value: object) -> object:
    result = entry(value)
    return await result if inspect.isawaitable(result) else result


async def _bounded(main: Awaitable[T]) -> T:
    async with asyncio.timeout(_BOUND):
        return await main


async def _refused(
    owner: LoopRuntime, stranger: LoopRuntime, name: str, entry: Callable[[Any], object], value: object
) -> None:
    """See that an entry is refused on a stranger's loop, by an error that names both loops."""
    error = await stranger.arun(_refused_here, name, entry, value)
    homes = str(owner.statistics().home), str(stranger.statistics().home)
    assert (error.owner, error.current) == homes, f"{name}: the error does not name the loops {homes}: {error}"


async def _refused_here(name: str, entry: Callable[[Any], object], value: object) -> WrongLoopError:
    """See that an entry is refused on the running loop; return the error."""
    try:
        result = await _bounded(_call(entry, value))
    except WrongLoopError as error:
        return error
    except Exception as error:
        raise AssertionError(
            f"{name}: the driver was touched, and said {type(error).__name__}: {error}"
        ) from error
    raise AssertionError(f"{name}: it was not refused, but gave {result!r}")


def _in_child(fn: Callable[[], object]) -> str:
    """Call a function in a forked child; return what it raised, or how else it ended badly, or nothing."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads and fork: that is the point
        child = os.fork()
    if child == 0:
        try:
            fn()
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode()[:4000])
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        complaint = answer.read().decode(errors="replace")
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code and not complaint:
        return f"it died by signal {-code}" if code < 0 else f"it ended with exit code {code}"
    return complaint
