"""Tracing of uses: futures, primitives and wake-ups on another loop or thread than their own."""

import asyncio
import asyncio.selector_events
import inspect
import weakref
from concurrent.futures import Future
from typing import Any

from homeloop._provenance import IdentityMap
from homeloop.runtime._trace_patches import Method, Patches, Switch
from homeloop.runtime._trace_sites import (
    Loop,
    LoopBound,
    is_closing,
    is_parents,
    misuse,
    ran_in_parent,
    report,
    running_loop,
    used_object,
    user_spot,
)

_WAKE_UPS = (
    (asyncio.Queue, "_wakeup_next"),
    (asyncio.Event, "set"),
    (asyncio.Lock, "_wake_up_first"),
    (asyncio.Semaphore, "_wake_up_next"),
    (asyncio.Condition, "notify"),
)


_SOCKET = vars(asyncio.selector_events)["_SelectorSocketTransport"]


def patch_loop_guards(patches: Patches, kind: Any) -> None:
    """Notice that a class's loops are asked for futures and timers while another loop runs."""
    patches.wrap(kind, "create_future", _making_future)
    patches.wrap(kind, "call_at", _setting_timer)
    if kind is not asyncio.BaseEventLoop:  # whose call_later() calls the other
        patches.wrap(kind, "call_later", _setting_timer)


def patch_guards(patches: Patches) -> None:
    """Notice uses of another loop's objects before the driver fails on them."""
    patches.wrap(LoopBound, "_get_loop", _binding)
    for kind, name in _WAKE_UPS:
        patches.wrap(kind, name, _waking)
    for module in (asyncio.tasks, asyncio):
        patches.wrap(module, "run_coroutine_threadsafe", _submitting)

    for name in ("write", "writelines"):
        patches.wrap(_SOCKET, name, _writing)


def patch_deep_loop_guards(patches: Patches, kind: Any) -> None:
    """Notice calls to a class's loops from a thread that is not theirs, as debug mode does."""
    for name in ("call_soon", "call_at", "call_later"):
        patches.wrap(kind, name, _calling)


def patch_deep_guards(patches: Patches) -> None:
    """Notice locks that stay held."""
    patches.wrap(asyncio.Lock, "acquire", _acquiring)


def _binding(original: Method, switch: Switch) -> Method:
    def _get_loop(self: Any) -> Loop:
        owner, current = self._loop, running_loop()
        if current is not None and owner is current:
            return current  # as the original would, which asks once more
        if owner is not None and current is not None and switch.is_on:
            evidence = "somebody waits for it on a loop that it is not bound to"
            report(misuse(self, owner, current), self, evidence, owner, current, user_spot())
        return original(self)  # type: ignore[no-any-return]

    return _get_loop


def _making_future(original: Method, switch: Switch) -> Method:
    def create_future(self: Loop) -> "asyncio.Future[Any]":
        current = running_loop()
        if current is not self and current is not None and switch.is_on:
            thing = used_object()
            evidence = "it makes a future on its own loop to wait for it on another"
            report(misuse(thing, self, current), thing, evidence, self, current, user_spot())
        return original(self)  # type: ignore[no-any-return]

    return create_future


def _setting_timer(original: Method, switch: Switch) -> Method:
    def set_timer(self: Loop, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        current = running_loop()
        if current is not self and current is not None and switch.is_on and not is_closing():
            thing = used_object()
            evidence = "it sets a timer on its own loop for what it does on another"
            report(misuse(thing, self, current), thing, evidence, self, current, user_spot())
        return original(self, *args, **kwargs)  # type: ignore[no-any-return]

    return set_timer


def _writing(original: Method, switch: Switch) -> Method:
    def write(self: Any, *args: Any, **kwargs: Any) -> Any:
        owner, current = self._loop, running_loop()
        if owner is not current and current is not None and switch.is_on and not is_closing():
            thing = used_object()
            thing = self if isinstance(thing, str) else thing
            evidence = "it writes to a socket that its own loop serves"
            report(misuse(thing, owner, current), thing, evidence, owner, current, user_spot())
        return original(self, *args, **kwargs)

    return write


def _waking(original: Method, switch: Switch) -> Method:
    def wake(self: Any, *args: Any, **kwargs: Any) -> Any:
        owner = self._loop
        if owner is not None and owner is not running_loop() and switch.is_on:
            current = running_loop()
            # Between two runs of its loop it may be touched: the loop looks at it when it runs again.
            between = current is None and not owner.is_running()
            if not between and _is_waited_for(self):
                evidence = "somebody waits for it on its loop, and this thread cannot wake that loop"
                report(_touch(self, owner, current), self, evidence, owner, current, user_spot())
        return original(self, *args, **kwargs)

    return wake


def _touch(thing: object, owner: Loop, current: Loop | None) -> str:
    """Name the fault of touching something of a loop on a thread that is not the loop's."""
    if current is None and not is_parents(owner):
        return "unsafe-cross-thread"
    return misuse(thing, owner, current)


def _is_waited_for(primitive: Any) -> bool:
    return any(getattr(primitive, name, None) for name in ("_waiters", "_getters", "_putters"))


class _Watched(Future[Any]):
    """A future that knows which loop it waits for."""

    _target: Loop
    _switch: Switch

    def result(self, timeout: float | None = None) -> Any:
        target = self._target
        if not self._switch.is_on or self.done() or (timeout is not None and timeout <= 0):
            return super().result(timeout)  # which does not wait, or is not to be told of
        if running_loop() is target:
            evidence = "the loop's own thread blocks until the loop has done something"
            report("sync-bridge-deadlock", "the result", evidence, target, target, user_spot())
        elif target.is_closed():
            evidence = "the loop that should do it is closed"
            report("loop-captured", "the result", evidence, target, running_loop(), user_spot())
        try:
            return super().result(timeout)
        except TimeoutError:
            if not self.done() and not target.is_running():
                evidence = "the loop that should do it does not run"
                report("sync-bridge-deadlock", "the result", evidence, target, running_loop(), user_spot())
            raise


def _submitting(original: Method, switch: Switch) -> Method:
    def run_coroutine_threadsafe(coro: Any, loop: Loop) -> "Future[Any]":
        if switch.is_on and ran_in_parent(loop):
            evidence = "the loop that should do it runs in the parent process; its thread was not forked"
            report("fork-inherited", loop, evidence, loop, running_loop(), user_spot())
        future: Future[Any] = original(coro, loop)
        if type(future) is Future and switch.is_on:
            future._target, future._switch = loop, switch  # type: ignore[attr-defined]
            future.__class__ = _Watched
        return future

    return run_coroutine_threadsafe


def _calling(original: Method, switch: Switch) -> Method:
    name = original.__name__

    def call(self: Loop, *args: Any, **kwargs: Any) -> Any:
        current = running_loop()
        if current is not self and switch.is_on and self.is_running():
            evidence = f"{name}() does not wake a loop that runs on another thread"
            report(_touch(self, self, current), self, evidence, self, current, user_spot())
        return original(self, *args, **kwargs)

    return call


_holders: IdentityMap["weakref.ref[asyncio.Task[Any]]"] = IdentityMap()
"""Which task has acquired a lock."""


def _acquiring(original: Method, switch: Switch) -> Method:
    async def acquire(self: asyncio.Lock) -> Any:
        current = asyncio.current_task() if switch.is_on and running_loop() is not None else None
        if current is None:
            return await original(self)
        known = _holders.get(self) if self.locked() else None
        holder = None if known is None else known()
        if holder is not None and holder is not current and _is_below(holder, current):
            evidence = "who holds it has called this nested run, and goes on only when that has ended"
            report("nest-unpatchable", self, evidence, running_loop(), running_loop(), user_spot())
        acquired = await original(self)
        _holders.put(self, weakref.ref(current))
        return acquired

    return acquire


def _is_below(task: "asyncio.Task[Any]", current: "asyncio.Task[Any]") -> bool:
    """Say whether another task of the current one's loop is in the middle of a step: further down this stack."""
    coroutine = task.get_coro()
    return task.get_loop() is current.get_loop() and inspect.iscoroutine(coroutine) and coroutine.cr_running
