"""The contract of ``run`` holds on every tier, by the same scenarios; in a process identity becomes equality."""

import asyncio
import functools
import gc
import pickle
import sys
import threading
import weakref
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import isolated_work as work
import pytest
import reporting_work as reporting
from waiting import until

import homeloop
from homeloop import Isolation, IsolationExecutor
from homeloop.errors import CallTimeoutError, RemoteError
from homeloop.isolation._packed_error import pack_error, unpack_error

EVERY = [Isolation.NONE, Isolation.CONTEXT, Isolation.THREAD, Isolation.PROCESS]
ISOLATED = EVERY[1:]


@pytest.fixture(params=EVERY)
def tier(request: pytest.FixtureRequest) -> Isolation:
    """Every tier."""
    return Isolation(request.param)


@pytest.fixture
def run(executor: IsolationExecutor, go, tier: Isolation):  # type: ignore[no-untyped-def]
    """Run a function in the tier, from a loop of each kind."""
    return lambda fn, *args, **options: go(functools.partial(executor.run, isolation=tier, **options), fn, *args)


def test_basics(run, tier: Isolation) -> None:  # type: ignore[no-untyped-def]
    """A01 to A08, A15: values, partials, callables, falsy results, the very same objects; in a real task."""
    thing = {"a": [1]}
    result = run(work.identity, thing)
    assert result == thing
    assert (result is thing) is (tier is not Isolation.PROCESS)
    assert run(functools.partial(work.identity, 3)) == 3
    assert run(work.Caller(), 4) == 4
    for falsy in (None, 0, "", False):
        assert run(work.identity, falsy) == falsy
    assert isinstance(run(work.return_exception), ValueError)
    assert run(work.facts) == (True, True, True)
    with pytest.raises(TypeError):
        run(work.plain, 1)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"isolation": "procces"}, "isolation must be one of none, context, thread, process, auto, got 'procces'"),
        ({"on_progress": 5}, "on_progress must be callable or None, got 5"),
        ({"carry": ("tenant",)}, "carry must be a sequence of context variables, and 'tenant' is none"),
        ({"carry": work.tenant}, "carry must be a sequence of context variables, got one: 'tenant'"),
        ({"timeout": "5"}, "timeout must be a number of seconds or None, got '5'"),
    ],
)
def test_options_of_the_wrong_kind(executor: IsolationExecutor, go: Any, options: Any, told: str) -> None:
    """An option that makes no sense is refused before the function is called, by an error that names it."""

    async def main() -> None:
        with pytest.raises((TypeError, ValueError)) as caught:
            await executor.run(work.refuse, **options)
        assert str(caught.value) == told

    go(main)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"preload": "json"}, "preload must be a sequence of modules' names, got 'json'; write ('json',)"),
        ({"max_processes": "2"}, "max_processes must be a whole number, got '2'"),
        ({"max_threads": 0}, "max_threads must be at least 1, got 0"),
        ({"grace": -1}, "grace must be at least 0 seconds, got -1"),
        ({"grace": "1"}, "grace must be a number of seconds, got '1'"),
        ({"block_threshold": 0}, "block_threshold must be more than 0 seconds, got 0"),
        ({"carry": ("tenant",)}, "carry must be a sequence of context variables, and 'tenant' is none"),
    ],
)
def test_executors_that_make_no_sense(options: Any, told: str) -> None:
    """An executor's options are looked at when it is made, not when something fails over there."""
    with pytest.raises((TypeError, ValueError)) as caught:
        IsolationExecutor(**options)
    assert str(caught.value) == told


@pytest.mark.parametrize("tier", [*EVERY, Isolation.AUTO], indirect=True)
@pytest.mark.filterwarnings("error")
def test_functions_of_the_wrong_kind(executor: IsolationExecutor, go: Any, tier: Isolation) -> None:
    """The error names the function, says what was expected and what to call instead."""

    async def iterate(fn: Any) -> None:
        async with aclosing(executor.stream(fn, isolation=tier)) as stream:
            async for _ in stream:
                pass

    async def run(fn: Any) -> None:
        await executor.run(fn, isolation=tier)

    async def in_scope(fn: Any) -> None:
        async with executor.isolated("wrong kind", isolation=tier) as scope:
            async for _ in scope.stream(fn):
                pass

    expected: list[tuple[Any, Any, str]] = [
        (run, work.answer_at_once, r"async function, and \S*answer_at_once\(\) is none: .* call it directly"),
        (run, work.count_up, r"and \S*count_up\(\) is an async generator function; iterate stream_isolated\("),
        (run, work.Counter(), r"and \S*Counter\S* is an async generator function; iterate stream_isolated\("),
        (run, functools.partial(work.count_up), "iterate stream_isolated"),
        (iterate, work.where, r"generator function, and \S*where\(\) is an async function; await run_isolated\("),
        (iterate, work.Waiter(), r"Waiter\S* is an async function; await run_isolated\("),
        (iterate, work.answer_at_once, r"generator function, and \S*answer_at_once\(\) is none: it returned int"),
        (iterate, None, r"stream_isolated\(\) needs an async generator function, got None"),
        (iterate, work.count_up(1), r"not an async generator: stream_isolated\(count_up, ...\)"),
        (in_scope, work.where, "await run_isolated"),
    ]
    for way, fn, told in expected:
        with pytest.raises(TypeError, match=told):
            go(way, fn)
    gc.collect()


def test_what_works_inside(run) -> None:  # type: ignore[no-untyped-def]
    """A09 to A11: AnyIO, subprocesses and to_thread work."""
    assert run(work.use_anyio) == ["asyncio", True]
    assert run(work.subprocess_output) == "from below"
    assert run(work.in_thread, 5) == 5


def test_errors(run, tier: Isolation) -> None:  # type: ignore[no-untyped-def]
    """B01 to B04: type, state, cause and group arrive whole; both sides are in the traceback or its note."""
    with pytest.raises(work.Refused) as caught:
        run(work.refuse)
    assert (caught.value.what, caught.value.code) == ("it", 7)
    assert isinstance(caught.value.__cause__, KeyError)
    shown = "".join(homeloop_traceback(caught.value))
    assert "in refuse" in shown
    assert "test_errors" in shown
    with pytest.raises(ExceptionGroup) as group:
        run(work.fail_in_group)
    assert [type(error) for error in group.value.exceptions] == [work.Refused]


def homeloop_traceback(error: BaseException) -> list[str]:
    """Return a traceback with its notes, as Python prints it."""
    import traceback

    return traceback.format_exception(error)


def test_errors_that_are_not_ours(run) -> None:  # type: ignore[no-untyped-def]
    """B05 to B09: the function's own errors are not mistaken for the tier's."""
    with pytest.raises(TimeoutError, match="my own") as own:
        run(work.raise_timeout, timeout=DEADLINE)
    assert not isinstance(own.value, CallTimeoutError)
    before = run(work.count_steps)
    with pytest.raises(RuntimeError, match="for the weekend"):
        run(work.raise_runtime_error)
    assert run(work.count_steps) == before + 1
    with pytest.raises(RuntimeError, match="StopIteration"):
        run(work.raise_stop_iteration)


DEADLINE = 60.0


@pytest.mark.parametrize("tier", ISOLATED, indirect=True)
def test_cancelling_itself(run) -> None:  # type: ignore[no-untyped-def]
    """B08, B09: its own CancelledError reaches the caller, and the tier goes on."""
    with pytest.raises(asyncio.CancelledError):
        run(work.raise_cancelled)
    with pytest.raises(asyncio.CancelledError):
        run(work.cancel_itself)
    assert run(work.identity, 1) == 1


@pytest.mark.parametrize("tier", ISOLATED, indirect=True)
@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt", "Abort"])
def test_base_exceptions(executor: IsolationExecutor, go, tier: Isolation, name: str) -> None:  # type: ignore[no-untyped-def]
    """B10 to B12: they reach the caller, who may handle them; the tier survives."""

    async def main() -> str:
        try:
            await executor.run(work.raise_named, name, isolation=tier)
        except BaseException as error:
            assert await executor.run(work.identity, 1, isolation=tier) == 1
            return type(error).__name__
        return "nothing"

    assert go(main) == name


def test_errors_that_do_not_pickle(run, tier: Isolation) -> None:  # type: ignore[no-untyped-def]
    """An error that pickle cannot rebuild is one of its own type all the same, or a faithful stand-in."""
    with pytest.raises(work.KeywordOnly) as caught:
        run(work.refuse_keyword_only)
    assert caught.value.what == "that"
    with pytest.raises(Exception, match="from a function") as local:
        run(work.refuse_locally)
    assert type(local.value).__name__ == "Local"  # by cloudpickle


def test_stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without cloudpickle an error of a class that nobody can import is a RemoteError that tells all of it."""
    monkeypatch.setitem(sys.modules, "cloudpickle", None)

    class Local(Exception):
        pass

    try:
        try:
            raise Local("inside")
        except Local as error:
            error.add_note("a note")
            raise work.Refused("it", 1) from error
    except work.Refused as error:
        packed = pickle.loads(pickle.dumps(pack_error(error)))
    rebuilt = unpack_error(packed, "process 1")
    assert isinstance(rebuilt, work.Refused)
    cause = rebuilt.__cause__
    assert isinstance(cause, RemoteError)
    assert (cause.kind.rpartition(".")[2], cause.message) == ("Local", "inside")
    assert cause.__notes__[0] == "a note"
    assert "test_stand_ins" in cause.__notes__[1]
    assert pickle.loads(pickle.dumps(rebuilt)).__notes__ == rebuilt.__notes__


@pytest.mark.parametrize("tier", ISOLATED, indirect=True)
def test_nothing_is_kept(executor: IsolationExecutor, go, tier: Isolation) -> None:  # type: ignore[no-untyped-def]
    """B13, B14: arguments are freed without the collector, after failed calls too."""

    class Argument:
        pass

    async def fail(_: object) -> None:
        raise ValueError

    async def main() -> list[bool]:
        gone = []
        for fn in (work.identity, fail) if tier is not Isolation.PROCESS else (work.identity,):
            argument: object = Argument() if tier is not Isolation.PROCESS else Picklable()
            seen = weakref.ref(argument)
            try:
                await executor.run(fn, argument, isolation=tier)
            except ValueError:
                pass
            del argument
            async with asyncio.timeout(10):
                while seen() is not None:  # the other thread's last steps; no collector helps
                    await asyncio.sleep(0.001)
            gone.append(True)
        return gone

    gc.collect()
    gc.disable()
    try:
        assert all(go(main))
    finally:
        gc.enable()


class Picklable:
    """Something that can cross and be watched."""

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        return object, ()


def test_context_goes_in_and_stays_inside(executor: IsolationExecutor, go, tier: Isolation) -> None:  # type: ignore[no-untyped-def]
    """F01, F04, F05: variables go in (those of ``carry``, to a process); what is changed inside stays there."""

    async def main() -> None:
        work.tenant.set("acme")
        run = functools.partial(executor.run, isolation=tier, carry=[work.tenant])
        assert await run(work.read_tenant) == "acme"
        assert await run(work.set_tenant, "inner") == "inner"
        assert work.tenant.get() == ("inner" if tier is Isolation.NONE else "acme")
        if tier is Isolation.PROCESS:
            assert await executor.run(work.read_tenant, isolation=tier) == "nobody"
        with homeloop.as_user("ann"):
            assert await executor.run(work.read_user, isolation=tier) == "ann"
        assert await executor.run(work.read_user, isolation=tier) is None

    go(main)


def test_timeouts(run, tier: Isolation, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """G01, G02, G04, G05, G09 to G11: builtin TimeoutError after the clean-up, with the place; then as before."""
    file = tmp_path / "steps"
    with pytest.raises(TimeoutError) as caught:
        run(work.clean_up_slowly, str(file), timeout=0.2)
    assert file.read_text().split() == ["first", "second"]
    assert isinstance(caught.value, CallTimeoutError)
    assert not caught.value.abandoned
    assert caught.value.timeout == 0.2
    assert "clean_up_slowly()" in caught.value.what
    with pytest.raises(CallTimeoutError, match=r"it was waiting at .*load_the_page > .*wait_for_ever"):
        run(work.load_the_page, timeout=0.2)
    for nothing in (0, -1):
        with pytest.raises(CallTimeoutError, match="it never began: its timeout left it no time"):
            run(work.wait_for_ever, timeout=nothing)
    assert run(work.have_a_plan_b, timeout=DEADLINE) == "plan b"
    assert run(work.identity, 1, timeout=DEADLINE) == 1


def test_timeouts_of_the_works_own_calls(executor: IsolationExecutor, go: Any, tier: Isolation) -> None:
    """What a call that the work has made says stays as it is, and is no sign that the work was abandoned."""

    async def main() -> None:
        before = executor.statistics().tiers[tier]
        with pytest.raises(CallTimeoutError) as caught:
            await executor.run(work.raise_call_timeout, isolation=tier)
        assert (caught.value.what, caught.value.timeout) == ("other()", 5.0)
        after = executor.statistics().tiers[tier]
        assert (after.abandoned, after.ended) == (before.abandoned, before.ended)

    go(main)


@pytest.mark.parametrize("tier", ISOLATED, indirect=True)
def test_a_cancelled_caller(executor: IsolationExecutor, go, tier: Isolation, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """H01, H08: cancelling the caller cancels the work, whose clean-up has run when the caller goes on."""
    file = tmp_path / "steps"
    ready = tmp_path / "ready"

    async def main() -> None:
        running = asyncio.ensure_future(executor.run(started, str(ready), str(file), isolation=tier))
        await until(ready.exists)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert file.read_text().split() == ["first", "second"]
        assert await executor.run(work.identity, 1, isolation=tier) == 1

    started = work.started_clean_up
    go(main)


@pytest.mark.parametrize("tier", [Isolation.CONTEXT, Isolation.THREAD], indirect=True)
def test_a_cancelled_anyio_scope(executor: IsolationExecutor, tier: Isolation) -> None:
    """AnyIO cancels a task again in every turn of the loop until it ends; not while a clean-up is waited for."""
    cancelling, may_end = threading.Event(), threading.Event()
    repeats: list[str] = []

    async def clean_up_in_a_while() -> None:
        try:
            await work.wait_for_ever()
        finally:
            cancelling.set()
            while not may_end.is_set():
                await asyncio.sleep(0.001)

    async def tick() -> None:
        while not cancelling.is_set():
            await asyncio.sleep(0.001)
        for _ in range(1_000):
            await asyncio.sleep(0)
        may_end.set()

    def count(frame: Any, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name == "_deliver_cancellation":
            repeats.append(event)

    async def main() -> None:
        ticking = asyncio.create_task(tick())
        sys.setprofile(count)
        try:
            with anyio.move_on_after(0.05) as scope:
                await executor.run(clean_up_in_a_while, isolation=tier)
        finally:
            sys.setprofile(None)
        assert scope.cancelled_caught
        assert may_end.is_set()
        await ticking

    asyncio.run(main())
    assert len(repeats) < 100


@pytest.mark.parametrize("tier", ISOLATED, indirect=True)
def test_sync_twin(executor: IsolationExecutor, tier: Isolation) -> None:
    """From sync code: value, progress in order, time-out."""
    got: list[object] = []
    assert executor.run_sync(reporting.report_many, 3, isolation=tier, on_progress=lambda *a: got.append(a)) == 3
    assert [step[1] for step in got] == [0, 1, 2]
    with pytest.raises(CallTimeoutError):
        executor.run_sync(work.wait_for_ever, isolation=tier, timeout=0.1)


def test_generators(executor: IsolationExecutor, go, tier: Isolation, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """M01 to M05: items in order, in one task and context; closing early runs its finally; errors arrive."""
    file = tmp_path / "closed"

    async def main() -> None:
        stream = functools.partial(executor.stream, isolation=tier)
        expected = [(number, "generator") for number in range(3)]
        assert [item async for item in stream(work.count_up, 3)] == expected
        async with aclosing(stream(work.count_up, 100, str(file))) as items:
            assert await anext(items) == (0, "generator")
            assert await anext(items) == (1, "generator")
        assert file.read_text() == "closed\n"
        got = []
        with pytest.raises(work.Refused):
            async for item in stream(work.fail_after, 2):
                got.append(item)
        assert got == [0, 1]

    go(main)


@pytest.mark.parametrize("tier", ISOLATED, indirect=True)
def test_refused_before_it_begins(run) -> None:  # type: ignore[no-untyped-def]
    """A call that is refused makes no coroutine."""
    with pytest.raises(TypeError, match="needs an async function"):
        run(3)
    with pytest.raises(TypeError, match="not a coroutine"):
        run(work.identity(1))
    with pytest.raises(TypeError, match="timeout must be"):
        run(work.identity, 1, timeout="soon")
