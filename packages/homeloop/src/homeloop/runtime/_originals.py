"""
The standard library as the interpreter ships it, also where gevent or eventlet have replaced parts of it.

An event loop and its workers need threads that the system schedules, and locks that work between
them. A monkey-patched process has neither under the usual names. So a patched module is imported
once more, under a name of its own, and what it imports itself is original again, too; nothing that
other code sees is changed.
"""

import asyncio
import builtins
import importlib
import importlib.util
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from importlib.abc import InspectLoader
from types import BuiltinFunctionType, CodeType, ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from _thread import LockType as Lock

_ALIAS = "homeloop.runtime original "

_COPIED = frozenset(
    {
        *("_thread", "os", "posix", "select", "selectors", "socket", "subprocess", "threading", "time"),
        *("asyncio.base_events", "asyncio.base_subprocess", "asyncio.selector_events", "asyncio.unix_events"),
    }
)
"""What a loop needs of its own. The rest of asyncio (futures, tasks, the running loop) is everybody's."""


_made: dict[str, ModuleType] = {}


def original(name: str) -> Any:  # Any: a module
    """Return a module of the standard library with original threads, locks, sockets and processes."""
    module = _made.get(name)
    if module is None:
        with _making:  # the only thread that may see one half made, as circular imports do
            module = sys.modules.get(_ALIAS + name) or (_original_os() if name == "os" else _import(name))
            _made[name] = module
    return module


def threads_are_replaced() -> bool:
    """Whether `threading.Thread` makes greenlets now. It may begin at any time, usually it does at start-up."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        return True
    eventlet = sys.modules.get("eventlet.patcher")
    return eventlet is not None and bool(eventlet.is_monkey_patched("thread"))


def real_threading() -> Any:
    """Return the threading module that makes threads: the usual one, or its original."""
    return original("threading") if threads_are_replaced() else threading


def real_subprocess() -> Any:
    """Return the subprocess module that waits for nobody's hub: the usual one, or its original."""
    # Only then: a copy of `threading` that is made on a thread takes the place of what tells of that thread's end.
    return original("subprocess") if threads_are_replaced() else subprocess


def real_socket() -> Any:
    """Return the socket module that waits for nobody's hub: the usual one, or its original."""
    return original("socket") if threads_are_replaced() else socket


def real_selectors() -> Any:
    """Return the selectors module that waits for nobody's hub: the usual one, or its original."""
    return original("selectors") if threads_are_replaced() else selectors


def use_original_lock(future: "Future[Any]") -> None:
    """Let threads of the system complete a future, and not just greenlets, that nobody else knows yet."""
    if threads_are_replaced():
        future._condition = original("threading").Condition()


def original_loop(selector: Any) -> asyncio.AbstractEventLoop:
    """Make asyncio's own loop, with original sockets and processes, on a selector of the caller's."""
    loop: asyncio.AbstractEventLoop = original("asyncio.unix_events").SelectorEventLoop(selector)
    return loop


def _import(name: str) -> ModuleType:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(name)
    module = importlib.util.module_from_spec(spec)
    code = cast("InspectLoader", spec.loader).get_code(name)
    # Registered first, for circular imports.
    sys.modules[_ALIAS + name] = module
    try:
        if code is None:
            spec.loader.exec_module(module)  # written in C: made anew, it is as it was
        else:
            _run_copy(module, code, spec.parent)
    except BaseException:
        del sys.modules[_ALIAS + name]
        raise
    if name == "asyncio.unix_events":
        _watch_children(module)
    return module


def _run_copy(module: ModuleType, code: CodeType, package: str | None) -> None:
    if module.__name__ == "socket":  # it makes its enumerations in the module of that name
        module.__name__ = _ALIAS + module.__name__
    vars(module)["__builtins__"] = {**vars(builtins), "__import__": _importer(package)}
    exec(code, vars(module))  # noqa: S102 - a module of the standard library


def _importer(package: str | None) -> Callable[..., Any]:
    """Make the ``__import__`` of a copied module, for which copied modules come first."""

    def import_(
        name: str, _globals: object, _locals: object, wanted: tuple[str, ...] | None, level: int = 0
    ) -> Any:  # Any: a module
        absolute = importlib.util.resolve_name("." * level + name, package) if level else name
        if not wanted:
            return original(absolute) if absolute in _COPIED else __import__(name)
        module = original(absolute) if absolute in _COPIED else importlib.import_module(absolute)
        copied = {item: original(f"{absolute}.{item}") for item in wanted if f"{absolute}.{item}" in _COPIED}
        if not copied:
            return module
        return SimpleNamespace(**{item: copied.get(item) or getattr(module, item) for item in wanted})

    return import_


def _original_os() -> ModuleType:
    # Not run anew: it would have an environment of its own.
    import os

    module = ModuleType(_ALIAS + "os")
    vars(module).update(vars(os))
    posix: ModuleType = original("posix")
    for name, function in vars(posix).items():
        if isinstance(function, BuiltinFunctionType) and not isinstance(
            vars(os).get(name, function), BuiltinFunctionType
        ):
            setattr(module, name, function)
    sys.modules[_ALIAS + "os"] = module
    return module


def _watch_children(unix_events: Any) -> None:
    """Before Python 3.14 a loop asks the process for what waits for its children: let it be original, too."""
    if hasattr(unix_events, "ThreadedChildWatcher"):
        watcher = unix_events.ThreadedChildWatcher()
        unix_events.events = SimpleNamespace(**{**vars(unix_events.events), "get_child_watcher": lambda: watcher})


def _thread_module() -> Any:
    module = importlib.import_module("_thread")
    return module if isinstance(module.allocate_lock, BuiltinFunctionType) else _import("_thread")


_thread = _thread_module()
_making = _thread.RLock()

allocate_lock: "Callable[[], Lock]" = _thread.allocate_lock
"""A lock that works between threads of the system. Hold it for a few steps only: it knows no greenlets."""

RLock = _thread.RLock

if TYPE_CHECKING:
    from threading import local as local
else:
    local = _thread._local
"""What belongs to one thread of the system."""

get_ident: Callable[[], int] = _thread.get_ident
"""The number of the system's thread, also for a greenlet."""
