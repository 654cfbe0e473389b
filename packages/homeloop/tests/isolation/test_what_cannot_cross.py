"""What cannot cross to a worker process, or back, is refused by name: which it is, its type, why, what to do."""

import functools
import os
import sys
import threading
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import isolated_work as work
import pytest

import homeloop
from homeloop import Isolation, IsolationExecutor
from homeloop.errors import NotTransferableError

PROCESS = Isolation.PROCESS

hidden: ContextVar[object] = ContextVar("hidden")


class Client:
    """Something that has a connection, or the like."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    async def ask(self, thing: object) -> object:
        return thing


class Forgetful:
    """Leaves what cannot cross behind, and so crosses."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        return {}


@pytest.fixture
def fresh() -> Any:
    """Return an executor that has not started anything."""
    with IsolationExecutor(name="fresh", max_processes=1) as executor:
        yield executor


CASES: dict[str, tuple[Any, tuple[Any, ...], str]] = {
    "argument": (
        work.identity,
        (threading.Lock(),),
        r"^argument 0 of isolated_work.identity\(\) \(_thread.lock\) cannot cross to another process: "
        r"TypeError: cannot pickle '_thread.lock' object; pass data, and open what it needs over there",
    ),
    "second argument": (
        work.take,
        (1, threading.Lock()),
        r"^argument 1 of isolated_work.take\(\) \(_thread.lock\)",
    ),
    "keyword argument": (
        functools.partial(work.take, 1, second=2, client=threading.Lock()),
        (),
        r"^keyword argument 'client' of isolated_work.take\(\) \(_thread.lock\)",
    ),
    "argument of a partial": (
        functools.partial(work.take, threading.Lock()),
        (2,),
        r"^argument 0 of isolated_work.take\(\) \(_thread.lock\)",
    ),
    "deep in an argument": (
        work.take,
        ({"clients": [Forgetful(), Client()]}, 2),
        r"^argument 0 of isolated_work.take\(\) \(dict\) cannot cross to another process: "
        r"its \['clients'\]\[1\]\.lock is a _thread.lock: TypeError: cannot pickle",
    ),
    "object of a method": (
        Client().ask,
        (1,),
        r"^the function .*Client.ask\(\) cannot cross to another process: its \.__self__\.lock is a _thread.lock",
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("by_value", [True, False])
def test_before_anything_is_started(
    fresh: IsolationExecutor, go: Any, monkeypatch: pytest.MonkeyPatch, case: str, by_value: bool
) -> None:
    """The error names the part, with and without cloudpickle; no process is started for it."""
    fn, args, told = CASES[case]
    if not by_value:
        monkeypatch.setitem(sys.modules, "cloudpickle", None)
        told = told.partition("; pass data")[0]
    with pytest.raises(NotTransferableError, match=told) as caught:
        go(functools.partial(fresh.run, isolation=PROCESS), fn, *args)
    assert isinstance(caught.value.__cause__, TypeError)
    statistics = fresh.statistics().tiers[PROCESS]
    assert (statistics.kept, statistics.lent, statistics.died) == (0, 0, 0)
    assert not fresh._processes.is_started


def test_of_streams_and_variables(fresh: IsolationExecutor, go: Any) -> None:
    """Arguments of generators have the same numbers; context variables and claims of users have their names."""

    async def iterate() -> None:
        async with aclosing(fresh.stream(work.count_up, 3, threading.Lock(), isolation=PROCESS)) as items:
            async for _ in items:
                pass

    async def carry() -> None:
        hidden.set({"a": threading.Lock()})
        await fresh.run(work.where, isolation=PROCESS, carry=[work.tenant, hidden])

    async def act() -> None:
        with homeloop.as_user(homeloop.User("u1", {"role": threading.Lock()})):
            await fresh.run(work.where, isolation=PROCESS)

    with pytest.raises(NotTransferableError, match=r"^argument 1 of isolated_work.count_up\(\) \(_thread.lock\)"):
        go(iterate)
    with pytest.raises(
        NotTransferableError, match=r"^context variable 'hidden' \(dict\).*its \['a'\] is a _thread"
    ):
        go(carry)
    with pytest.raises(
        NotTransferableError, match=r"^the user cannot.*: its \.claims\['role'\] is a _thread.lock"
    ):
        go(act)
    assert not fresh._processes.is_started


def test_results(executor: IsolationExecutor, go: Any) -> None:
    """A result is named with its function, whichever side it fails on; the next call works."""
    run = functools.partial(executor.run, isolation=PROCESS)
    with pytest.raises(
        NotTransferableError,
        match=r"^the result of isolated_work.return_lock\(\) \(_thread.lock\) cannot cross.*; return data",
    ):
        go(run, work.return_lock)
    with pytest.raises(NotTransferableError, match=r"\(list\).*: its \[1\]\['lock'\] is a _thread.lock"):
        go(run, work.return_deep_lock)
    with pytest.raises(
        NotTransferableError,
        match=r"^the result of isolated_work.return_fussy\(\) cannot cross.*ValueError: rebuilt elsewhere; return",
    ):
        go(run, work.return_fussy)
    assert go(run, work.identity, 1) == 1


def test_over_there(executor: IsolationExecutor, go: Any) -> None:
    """What the worker cannot rebuild or find has its name, too; and what arguments share is shared there."""
    run = functools.partial(executor.run, isolation=PROCESS)
    with pytest.raises(
        NotTransferableError,
        match=r"^argument 1 of isolated_work.take\(\) \(\S*Fussy\) cannot cross.*: ValueError: rebuilt elsewhere",
    ):
        go(run, work.take, 1, work.Fussy())
    with pytest.raises(NotTransferableError, match=r"^keyword argument 'client' of isolated_work.take\(\)"):
        go(run, functools.partial(work.take, client=work.Fussy()), 1, 2)
    shared = ["shared"]
    assert go(run, functools.partial(work.are_same, other=shared), shared, {"it": shared})


def test_functions(executor: IsolationExecutor, go: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that the worker does not find, or whose module ends it, is named; the worker lives on."""
    run = functools.partial(executor.run, isolation=PROCESS)
    pid, _ = go(run, work.where)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "leaves_elsewhere.py").write_text(
        f"import os, sys\nif os.getpid() != {os.getpid()}: sys.exit(3)\nasync def work(): return 1\n"
    )
    (tmp_path / "lacks_elsewhere.py").write_text(
        f"import os\nif os.getpid() == {os.getpid()}:\n    async def work(): return 1\n"
    )
    import lacks_elsewhere  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]
    import leaves_elsewhere  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]

    told = r"^the function lacks_elsewhere.work\(\) cannot cross.*AttributeError.*lacks_elsewhere"
    with pytest.raises(NotTransferableError, match=told):
        go(run, lacks_elsewhere.work)
    told = r"^the function leaves_elsewhere.work\(\) cannot cross.*: SystemExit: 3; it must be possible to import"
    for _ in range(2):
        with pytest.raises(NotTransferableError, match=told):
            go(run, leaves_elsewhere.work)
    assert go(run, work.where)[0] == pid
