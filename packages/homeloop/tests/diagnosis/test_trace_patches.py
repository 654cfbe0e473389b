"""What tracing puts into asyncio and into drivers, and takes out again."""

import asyncio
import asyncio.selector_events
import importlib.util
import sys
import threading
import types
import zipfile
import zipimport
from pathlib import Path
from unittest import mock

import pytest

from homeloop import trace

BOUND = 10.0


PATCHED = (
    (asyncio.BaseEventLoop, ("__init__", "run_forever", "close", "create_future", "create_task", "call_soon")),
    (asyncio.BaseEventLoop, ("call_at", "call_later", "shutdown_asyncgens")),
    (asyncio.Lock, ("acquire",)),
    (asyncio.Queue, ("_wakeup_next",)),
    (asyncio.Queue.__base__, ("_get_loop",)),
    (asyncio.Event, ("set",)),
    (asyncio.selector_events._SelectorSocketTransport, ("write",)),  # type: ignore[attr-defined]
    (asyncio.tasks, ("run_coroutine_threadsafe",)),
    (asyncio, ("run_coroutine_threadsafe",)),
    (asyncio.runners, ("_cancel_all_tasks",)),
)


def test_off_leaves_nothing() -> None:
    """Asyncio's functions are the same objects again after tracing, also after two levels in a row."""
    before = [vars(owner)[name] for owner, names in PATCHED for name in names]
    for level in (1, 3, 2):
        trace.enable(level)
        assert trace.level() == level
        assert asyncio.Event.set not in before
    trace.disable()
    assert [vars(owner)[name] for owner, names in PATCHED for name in names] == before
    with pytest.raises(ValueError, match="no trace level 4"):
        trace.enable(4)
    assert trace.level() == 0


def test_what_others_patched_stays() -> None:
    """A function that somebody else exchanged while tracing was on is left to them."""
    original = asyncio.Event.set
    trace.enable(1)
    traced = asyncio.Event.set
    others = lambda self: traced(self)  # noqa: E731
    asyncio.Event.set = others  # type: ignore[method-assign, assignment]
    try:
        trace.disable()
        assert asyncio.Event.set is others
    finally:
        asyncio.Event.set = original  # type: ignore[method-assign]


def test_kept_by_others_it_does_nothing(heard: list[trace.LoopFault]) -> None:
    """What somebody else has wrapped calls the original only, once tracing is off; on again, it tells once."""

    async def touch() -> None:
        event = asyncio.Event()
        waiting = asyncio.create_task(event.wait())
        await asyncio.sleep(0)
        thread = threading.Thread(target=event.set)
        thread.start()
        await asyncio.to_thread(thread.join, BOUND)
        await asyncio.wait_for(waiting, BOUND)

    traced = asyncio.Event.set
    original = traced.__wrapped__  # type: ignore[attr-defined]
    asyncio.Event.set = lambda self: traced(self)  # type: ignore[method-assign]
    try:
        trace.disable()
        asyncio.run(touch())
        assert heard == []
        trace.enable(1)
        asyncio.run(touch())
        assert [fault.kind for fault in heard] == ["unsafe-cross-thread"]
        trace.disable()
    finally:
        asyncio.Event.set = original


def test_kept_hooks_of_loops_do_nothing(heard: list[trace.LoopFault]) -> None:
    """Each hook of a loop that somebody keeps neither records nor tells anything, once tracing is off."""
    kept = asyncio.BaseEventLoop
    names = ("create_future", "call_at", "call_soon", "create_task", "run_forever")
    traced = {name: vars(kept)[name] for name in names}
    trace.disable()
    known = len(trace.traced())
    foreign = asyncio.new_event_loop()

    async def use() -> None:
        traced["create_future"](foreign)
        traced["call_at"](foreign, foreign.time() + BOUND, print).cancel()
        await traced["create_task"](asyncio.get_running_loop(), asyncio.sleep(0))

    asyncio.run(use())
    traced["call_soon"](foreign, foreign.stop)
    traced["run_forever"](foreign)
    foreign.close()
    assert heard == []
    assert len(trace.traced()) == known


class Sealed(type):
    """A class of classes that nothing can be put into."""

    def __setattr__(cls, name: str, value: object) -> None:
        raise PermissionError(name)


def test_a_patch_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was exchanged before it is put back, and tracing is off."""
    before = [vars(owner)[name] for owner, names in PATCHED for name in names]
    finders = list(sys.meta_path)
    sealed = Sealed("AsyncClient", (), {})
    monkeypatch.setattr("httpx._client.AsyncClient", sealed)
    with pytest.raises(PermissionError):
        trace.enable(3)
    assert trace.level() == 0
    assert [vars(owner)[name] for owner, names in PATCHED for name in names] == before
    assert sys.meta_path == finders


def test_modules_of_one_loader_are_imported_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: list[trace.LoopFault]
) -> None:
    """A zip file has one loader for all its modules; those that are not watched are left alone."""
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("httpx2/__init__.py", "from httpx2 import _client\nfrom httpx2 import other")
        made.writestr("httpx2/_client.py", "class AsyncClient: pass")
        made.writestr("httpx2/other.py", "")
    monkeypatch.syspath_prepend(str(archive))
    for name in [name for name in sys.modules if name.partition(".")[0] == "httpx2"]:
        monkeypatch.delitem(sys.modules, name)
    client = importlib.import_module("httpx2._client")
    try:
        assert type(client.__loader__) is type(client.__spec__.loader) is zipimport.zipimporter
        one = client.AsyncClient()
        assert any(known.thing is one for known in trace.traced())
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "httpx2"]:
            del sys.modules[name]


@pytest.mark.parametrize("double", [None, types.ModuleType("double"), mock.Mock()], ids=["no", "empty", "mock"])
def test_doubles_of_modules(double: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in a module's place, to keep it from being imported or to test without it, is left alone."""
    for name in ("uvloop", "httpx._client"):
        monkeypatch.setitem(sys.modules, name, double)
    before = [vars(owner)[name] for owner, names in PATCHED for name in names]
    trace.enable(3)
    trace.disable()
    assert [vars(owner)[name] for owner, names in PATCHED for name in names] == before


def test_found_while_tracing_loaded_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: list[trace.LoopFault]
) -> None:
    """A module that is only found has its loader's abilities; loaded when tracing is off, it is as ever."""
    (tmp_path / "uvloop.py").write_text("class Loop:\n    def close(self): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "uvloop")
    spec = importlib.util.find_spec("uvloop")
    assert spec is not None
    assert spec.loader is not None
    assert "class Loop" in spec.loader.get_source("uvloop")  # type: ignore[attr-defined]
    module = importlib.util.module_from_spec(spec)
    trace.disable()
    spec.loader.exec_module(module)
    assert not hasattr(module.Loop.close, "__wrapped__")


def test_a_list_of_finders_that_was_put_back_does_no_harm() -> None:
    """Tests and plugins do so."""
    before = list(sys.meta_path)
    trace.enable(1)
    sys.meta_path[:] = before
    trace.disable()
    assert (trace.level(), sys.meta_path) == (0, before)


@pytest.mark.parametrize("level", ["x", "4", "true", "1.0"])
def test_a_level_that_is_none_is_told_of(script, level: str) -> None:  # type: ignore[no-untyped-def]
    """Or one would believe that production is traced."""
    ended = script("import homeloop.trace; print(homeloop.trace.level())", HOMELOOP_TRACE=level)
    assert ended.stdout == "0\n"
    assert f"HOMELOOP_TRACE={level} is no level of tracing" in ended.stderr
