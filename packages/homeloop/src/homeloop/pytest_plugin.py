"""Strict mode of pytest, ``--homeloop``: tests use no other loop's objects and leave nothing on a loop."""

import asyncio
import gc
import threading
from collections.abc import Generator, Iterable, Sequence
from typing import Any, cast
from weakref import WeakSet

import pytest

from homeloop import Event, add_instrument, default_runtime, diagnose, trace
from homeloop.diagnosis import from_fault

__all__ = ("StrictLoops",)

_KINDS = ("uses", "tasks", "threads", "loops", "pools")
_ALL = frozenset(_KINDS)
_BOUND = 1.0  # seconds a thread that is ending may take; it is joined, and waited for no longer than it lives

Result = Generator[None, object, object]


class StrictLoops:
    """
    Watches each test, from before its fixtures are set up until they are torn down.

    A fixture of a wider scope may leave things: they belong to it, not to the test that happens to come first.

    Args:
        config: Pytest's, for what all tests may do.

    Raises:
        pytest.UsageError: The setting names something unknown.
    """

    def __init__(self, config: pytest.Config) -> None:
        try:
            self._allowed = _checked(config.getini("homeloop_allow"))
        except ValueError as error:
            raise pytest.UsageError(f"the setting homeloop_allow: {error}") from None
        self._may = self._allowed
        self._level = trace.level()
        self._faults: list[trace.LoopFault] = []
        self._known = _Known()
        self._stop = add_instrument(self)

    def notify(self, event: Event) -> None:
        """Note what tracing sees. Thread: any."""
        if isinstance(event, trace.LoopFault):
            self._faults.append(event)

    def pytest_unconfigure(self) -> None:
        """Take everything off again; tracing is at the level that it had before."""
        self._stop()
        trace.enable(self._level)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Result:
        """Begin anew with each test: what was told of one is told of the next, too."""
        trace.enable(3)
        self._faults.clear()
        self._known = _Known()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Result:
        """Leave to a fixture of a wider scope what it makes."""
        if fixturedef.scope == "function":
            return (yield)
        before = _Known()
        try:
            return (yield)
        finally:
            self._known.add(_Known(), before)

    @pytest.hookimpl(wrapper=True, trylast=True)  # inside of pytest's own, whose teardown needs their setup
    def pytest_runtest_setup(self, item: pytest.Item) -> Result:
        """Refuse a test whose marker says something unknown; say of a fixture that failed what it was."""
        self._read_markers(item)
        return (yield from self._explained())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Result:
        """Fail a test that used an object of another loop; say of one that failed anyway what it was."""
        result = yield from self._explained()
        self._read_markers(item)  # the test or its fixtures may have added some
        self._fail_for_uses(item)
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Result:
        """Fail a test that left something, once its fixtures are torn down."""
        result = yield from self._explained()
        self._fail_for_uses(item)
        left = _Left(self._known, self._may).told()
        if left:
            pytest.fail(f"{item.nodeid} left behind:\n" + "\n".join(left), pytrace=False)
        return result

    def _explained(self) -> Result:
        """Let a phase run; what fails it is told with what was seen meanwhile, each fault once."""
        try:
            return (yield)
        except Exception as error:
            found = diagnose(error, note=True)
            for told in map(from_fault, self._taken_faults()):
                if found is None or told.code != found.code:
                    error.add_note(f"\n{told.render()}")
            raise

    def _taken_faults(self) -> list[trace.LoopFault]:
        faults, self._faults[:] = list(self._faults), []
        return [] if "uses" in self._may else faults

    def _fail_for_uses(self, item: pytest.Item) -> None:
        told = "\n\n".join(from_fault(fault).render() for fault in self._taken_faults())
        if told:
            pytest.fail(f"{item.nodeid} misuses event loops:\n\n{told}", pytrace=False)

    def _read_markers(self, item: pytest.Item) -> None:
        self._may = _ALL  # what is refused is told of once, and nothing else of this test
        try:
            self._may = self._allowed.union(*map(_allowed, item.iter_markers("homeloop")))
        except ValueError as error:
            pytest.fail(f"the marker homeloop of {item.nodeid}: {error}", pytrace=False)


class _Known:
    """What there is at a moment: threads, and what tracing knows. Nothing of it is kept alive."""

    def __init__(self) -> None:
        self.threads = WeakSet(threading.enumerate())  # not their idents: the next thread gets an ended one's
        self.numbers = {each.number for each in trace.traced()}

    def add(self, after: "_Known", before: "_Known") -> None:
        """Add what came in a while."""
        self.threads |= after.threads - before.threads
        self.numbers |= after.numbers - before.numbers


class _Left:
    """What is there now and was not before, and is not homeloop's own."""

    def __init__(self, known: _Known, allowed: frozenset[str]) -> None:
        self._known, self._allowed = known, allowed
        home = default_runtime().statistics().home
        own = [] if home is None else [each.ident for each in threading.enumerate() if each.name == home.thread]
        self._own_thread = own[0] if own else None

    def told(self) -> list[str]:
        """Return a line for each thing, with where it was made."""
        lines = self._objects()
        if lines:
            gc.collect()  # what nobody can reach is not left, only not collected yet
            lines = self._objects()
        return [*lines, *self._threads()]

    def _objects(self) -> list[str]:
        lines: list[str] = []
        for each in trace.traced():
            if each.number in self._known.numbers:
                continue
            kind, state = _state(each.thing)
            if state is None or kind in self._allowed or self._is_own(each.thing):
                continue
            where = "" if each.made_at is None else f", made at {each.made_at}"
            lines.append(f"  {kind[:-1]}: {state}{where}")
        return lines

    def _is_own(self, thing: object) -> bool:
        """Say whether it is the default runtime's loop, or on it: that one stays for the next test."""
        loop: Any = thing.get_loop() if isinstance(thing, asyncio.Task) else thing  # pyright: ignore[reportUnknownVariableType]
        return self._own_thread is not None and getattr(loop, "_thread_id", None) == self._own_thread

    def _threads(self) -> Iterable[str]:
        if "threads" in self._allowed:
            return
        for thread in threading.enumerate():
            if thread in self._known.threads or thread is threading.current_thread() or _is_foreign(thread):
                continue
            if thread.ident == self._own_thread or thread.name.startswith("homeloop-executor"):
                continue
            thread.join(_BOUND)
            if thread.is_alive():
                yield f"  thread: {thread.name!r}, {'daemon' if thread.daemon else 'not daemon'}, still running"


def _is_foreign(thread: threading.Thread) -> bool:
    """Say whether a thread was not started by Python's threading: nobody can join it or tell whether it ended."""
    return isinstance(thread, threading._DummyThread)  # pyright: ignore[reportPrivateUsage] - has no public name


def _state(thing: object) -> tuple[str, str | None]:
    """Return what a traced object is, and how it was left; None if it has ended or cannot be asked."""
    named = f"{type(thing).__module__}.{type(thing).__qualname__}"
    if isinstance(thing, asyncio.Task):
        task: asyncio.Task[Any] = thing  # pyright: ignore[reportUnknownVariableType]
        coroutine = getattr(task.get_coro(), "__qualname__", task.get_name())
        ended = task.done() or task.get_loop().is_closed()
        return "tasks", None if ended else f"{coroutine}(), pending on {_loop_named(task.get_loop())}"
    if isinstance(thing, asyncio.AbstractEventLoop):
        return "loops", None if thing.is_closed() else f"{_loop_named(thing)}, not closed"
    for name in ("is_closed", "closed", "_closed"):
        value: Any = getattr(thing, name, None)
        if value is not None:
            is_closed = value() if callable(value) else value
            return "pools", None if is_closed else f"{named}, not closed"
    return "pools", None


def _loop_named(loop: asyncio.AbstractEventLoop) -> str:
    state = "closed" if loop.is_closed() else "running" if loop.is_running() else "idle"
    return f"{type(loop).__module__}.{type(loop).__qualname__} ({state})"


def _allowed(marker: pytest.Mark) -> frozenset[str]:
    """Return what a marker allows; a ValueError tells what is wrong with it."""
    if marker.args or set(marker.kwargs) - {"allow"}:
        given = [*map(repr, marker.args), *(f"{name}={value!r}" for name, value in marker.kwargs.items())]
        raise ValueError(f"({', '.join(given)}): it takes nothing but allow=[...], of {', '.join(_KINDS)}")
    return _checked(marker.kwargs["allow"]) if marker.kwargs else _ALL


def _checked(names: object) -> frozenset[str]:
    given: Sequence[object] = [names] if isinstance(names, str) else cast("Sequence[object]", names)
    if not isinstance(names, str | list | tuple | set | frozenset):
        raise ValueError(f"allow={names!r} is no list of {', '.join(_KINDS)}")
    unknown = [name for name in given if name not in _KINDS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(_KINDS)}")
    return cast("frozenset[str]", frozenset(given))
