"""LoopGuard: objects that refuse every loop but their own, before the driver beneath them is touched."""

import asyncio
import inspect
import os
import threading
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

from homeloop._affinity import Affinity
from homeloop._events import GuardFailed
from homeloop.errors import AdapterError, AffinityError, WrongLoopError
from homeloop.resources._entries import Method, checked, refused
from homeloop.resources._products import Products, class_name
from homeloop.runtime import forget_in_child, loop_affinity

T = TypeVar("T")
Loop = asyncio.AbstractEventLoop
Guard = Callable[[Any, Loop], Any]
"""Takes an object and the loop it lives on, gives back the object, guarded. Any: objects of any product."""

GROUP = "homeloop.guards"
_HOME = "_home_loop"
_DUNDERS = frozenset(("__aenter__", "__aexit__", "__anext__"))

running_loop = asyncio._get_running_loop  # pyright: ignore[reportPrivateUsage] - documented, returns None

_homes: WeakKeyDictionary[Loop, Affinity] = WeakKeyDictionary()


def check_loop(loop: Loop, what: str) -> None:
    """
    Return if ``loop`` is the running loop; it costs about 0.1 µs.

    Args:
        loop: The loop that owns something.
        what: The owned thing, for the error.

    Raises:
        WrongLoopError: Another loop runs, or none.

    Thread: any.
    """
    if running_loop() is not loop:
        raise WrongLoopError(what, _describe(loop), _describe(running_loop()))


class LoopGuard:
    """
    Make objects of one kind refuse every loop but their own.

    Calling it with an object and its loop exchanges the object's class for a subclass whose entries
    compare the running loop with the object's and raise `WrongLoopError` before they do anything
    else. The object stays the same object and an instance of its class; other objects of that class,
    and the class, stay as they are. A coroutine is checked when it runs, not when it is made, so
    ``run_coroutine_threadsafe(pool.fetch(...), loop)`` may be written on any thread.

    Args:
        entries: The methods to check, of any kind: functions, coroutine functions, generators.
        coroutines: Check all public coroutine functions and async generator functions of the class too.
        loop: Dotted name of the attribute in which the product keeps the loop, for objects that take no
            further attribute. Without it the loop is kept in ``_home_loop``.
        results: By method name, the guard of what the method returns or its coroutine results in. This
            alone does not make it an entry.
        name: What the objects are called in errors; their class's name by default.
        corrections: By method name, a decorator of that method, for what the product does wrongly when its
            loop ends or another thread collects its garbage.

    Thread: any.
    """

    def __init__(
        self,
        *entries: str,
        coroutines: bool = False,
        loop: str = _HOME,
        results: Mapping[str, Guard] | None = None,
        name: str | None = None,
        corrections: Mapping[str, Callable[[Method], Method]] | None = None,
    ) -> None:
        self._entries = entries
        self._coroutines = coroutines
        self._loop = loop
        self._home = attrgetter(loop)
        self._results = results or {}
        self._name = name
        self._corrections = corrections or {}
        self._types: dict[type, type] = {}
        forget_in_child(self)

    def __call__(self, value: T, loop: Loop) -> T:
        """
        Guard an object and return it; one that is guarded already is only checked.

        Raises:
            WrongLoopError: The object belongs to another loop.
            AdapterError: Its class lacks an entry, or cannot be exchanged. The object is as it was.
        """
        if loop not in _homes and loop is running_loop():
            _homes[loop] = loop_affinity(loop)
        kind = type(value)
        if kind in self._types.values():
            owner = self._home(value)
            if owner is not None and owner is not loop:
                raise WrongLoopError(self._name or class_name(kind), _describe(owner), _describe(loop))
        else:
            guarded = self.type_of(kind)
            try:
                object.__setattr__(value, "__class__", guarded)
                if self._loop == _HOME:
                    object.__setattr__(value, _HOME, loop)
            except (TypeError, AttributeError) as error:  # the latter: __slots__ without a place for it
                if type(value) is guarded:
                    object.__setattr__(value, "__class__", kind)
                raise AdapterError(f"{class_name(kind)} cannot be guarded: {error}") from error
            return value
        if self._loop == _HOME:
            object.__setattr__(value, _HOME, loop)
        return value

    def type_of(self, kind: type[T]) -> type[T]:
        """Return the guarded subclass of a class; it is made once."""
        guarded = self._types.get(kind)
        if guarded is None:
            guarded = self._types.setdefault(kind, self._make_type(kind))
        return guarded

    def _make_type(self, kind: type) -> type:
        entries = {*self._entries}
        if self._coroutines:
            entries.update(filter(lambda name: _is_entry(kind, name), dir(kind)))
        body: dict[str, object] = {"__slots__": (), "__module__": kind.__module__, "__doc__": kind.__doc__}
        if self._loop == _HOME:
            body[_HOME] = None  # what the product makes of the class itself belongs to nobody yet
        for name in {*entries, *self._results, *self._corrections}:
            method = inspect.getattr_static(kind, name, None)
            if not inspect.isfunction(method):
                raise AdapterError(f"{class_name(kind)} has no method {name}(), so it cannot be guarded")
            if name in self._corrections:
                method = self._corrections[name](method)
            if name in entries or name in self._results:
                method = self._wrap(kind, name, method, is_entry=name in entries)
            body[name] = method
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # aiohttp discourages subclasses
            return type(kind)(kind.__name__, (kind,), body)

    def _wrap(self, kind: type, name: str, method: Method, *, is_entry: bool) -> Method:
        """Check the loop before a method does anything, and guard what it gives."""
        home, result = self._home, self._results.get(name)
        what = f"{self._name or class_name(kind)}.{name}()"

        def refuse(value: Any) -> None:
            owner = home(value)
            if owner is not None:
                raise WrongLoopError(what, _describe(owner), _describe(running_loop()))

        def pass_on(value: Any, given: Any) -> Any:
            owner = home(value)
            return given if owner is None or result is None else result(given, owner)

        return checked(
            method,
            what,
            self._loop,
            running_loop,
            refuse if is_entry else None,
            None if result is None else pass_on,
        )

    def forget_parent(self) -> None:
        """Refuse, in a forked child, what the parent guarded: even its loop, run again here, is another's."""
        for guarded in self._types.values():
            for name, method in list(vars(guarded).items()):
                if inspect.isfunction(method):
                    setattr(
                        guarded,
                        name,
                        refused(
                            method, partial(self._refuse_parents, f"{self._name or class_name(guarded)}.{name}()")
                        ),
                    )
        self._types = {}

    def _refuse_parents(self, what: str, value: Any) -> None:
        owner: Loop | None = self._home(value)
        whose = "another process" if owner is None else _describe(owner)
        raise WrongLoopError(what, whose, f"process {os.getpid()}, which was forked from that one")


_guards: Products[Guard] = Products(GROUP, GuardFailed)


def guard(value: T, loop: Loop) -> T:
    """
    Guard an object of a product that has a guard installed; return any other as it is.

    A guard is an entry point of the group ``homeloop.guards``, named as the top-level package of the
    product: a function of an object and its loop that returns the object, for the most part by a
    `LoopGuard`. A guard that fails is reported once, and the object stays unguarded.

    Raises:
        WrongLoopError: The object belongs to another loop.

    Thread: the loop's own.
    """
    kind = type(value)
    found = _guards.of(kind)
    if found is None:
        return value
    try:
        return cast("T", found(value, loop))
    except AffinityError:
        raise
    except Exception as error:
        _guards.give_up(kind, error)
        return value


def guarded(value: T, home: Affinity, loop: Loop) -> T:
    """Guard what a resource's factory made on ``loop``, before it is handed out. Raises as `guard`."""
    _homes[loop] = home
    return guard(value, loop)


def _is_entry(kind: type, name: str) -> bool:
    if name.startswith("_") and name not in _DUNDERS:
        return False
    method = inspect.getattr_static(kind, name)
    if not inspect.isfunction(method):
        return False
    return inspect.iscoroutinefunction(inspect.unwrap(method)) or inspect.isasyncgenfunction(method)


def _describe(loop: Loop | None) -> str:
    """Tell which loop; one that is not known here is looked at from this thread only if it runs here."""
    if loop is None:
        return f"no running loop (thread {threading.current_thread().name!r})"
    home = _homes.get(loop)
    if home is None and loop is running_loop():
        home = loop_affinity(loop)
    return f"another loop ({type(loop).__module__}.{type(loop).__qualname__})" if home is None else str(home)
