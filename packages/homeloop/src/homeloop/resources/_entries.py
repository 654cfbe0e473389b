"""Methods with a check in front of them, written out for their own parameters: that makes the check cheap."""

import functools
import inspect
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, cast

Method = Callable[..., Any]
Refuse = Callable[[Any], object]
"""Raises if an object may not be used; takes the object. Any: objects of any product."""

_MOST = 8
"""Parameters that are passed on by name. Of more, most have their default, which need not be passed. A guess."""

# What is filled in has names that no method's parameter has.
_CHECK = "    if _homeloop_running() is not {self}.{loop}: _homeloop_refuse({self})\n"
_BODIES = {
    "function": "def _homeloop_made({declared}):\n{check}    return {before}_homeloop_method({passed}){after}",
    "coroutine": "async def _homeloop_made({declared}):\n"
    "{check}    return {before}await _homeloop_method({passed}){after}",
    "awaiting": "def _homeloop_made({declared}):\n"
    "{check}    return {before}(yield from _homeloop_method({passed})){after}",
    "generator": "async def _homeloop_made({declared}):\n"
    "{check}    async with _homeloop_aclosing(_homeloop_method({passed})) as items:\n"
    "        async for item in items:\n"
    "            yield item",
}


def checked(
    method: Method,
    what: str,
    loop: str,
    running_loop: Callable[[], object],
    refuse: Refuse | None,
    result: Callable[[Any, Any], Any] | None,
) -> Method:
    """
    Return a method of the same kind that looks at the running loop first, and passes on what the method gives.

    A coroutine and a generator look when they run, not when they are made.

    Args:
        method: A function, coroutine function or asynchronous generator function of a class.
        what: The method's name, for tracebacks.
        loop: Dotted name of the attribute of its object that holds the loop.
        running_loop: Returns the running loop.
        refuse: Called with the object if its loop does not run; None: do not look.
        result: Called with the object and what the method gave; gives what the caller gets.
    """
    declared, passed, defaults = _parameters(method)
    if not all(part.isidentifier() for part in loop.split(".")):
        raise ValueError(f"loop is the dotted name of an attribute, not {loop!r}")
    source = _BODIES[_kind(method)].format(
        declared=declared,
        passed=passed,
        check="" if refuse is None else _CHECK.format(self=passed.partition(",")[0], loop=loop),
        before="" if result is None else f"_homeloop_result({passed.partition(',')[0]}, ",
        after="" if result is None else ")",
    )
    names: dict[str, Any] = {
        "_homeloop_running": running_loop,
        "_homeloop_refuse": refuse,
        "_homeloop_method": method,
        "_homeloop_result": result,
        "_homeloop_aclosing": aclosing,
        **defaults,
    }
    # As dataclasses do: *args and **kwargs cost more than all the rest, see bench/guards.py.
    exec(compile(source, f"<guard of {what}>", "exec"), names)  # noqa: S102
    return functools.wraps(method)(names["_homeloop_made"])


def refused(method: Method, refuse: Refuse) -> Method:
    """Return a method of the same kind that only refuses; a finalizer, which must not raise, does nothing."""

    def function(self: Any, *_: object, **__: object) -> None:
        if method.__name__ != "__del__":
            refuse(self)

    async def coroutine(self: Any, *_: object, **__: object) -> None:
        refuse(self)

    async def generator(self: Any, *_: object, **__: object) -> AsyncGenerator[None, None]:
        refuse(self)
        yield

    kinds = {"coroutine": coroutine, "generator": generator}
    return cast("Method", functools.wraps(method)(kinds.get(_kind(method), function)))


def _kind(method: Method) -> str:
    if inspect.iscoroutinefunction(inspect.unwrap(method)):
        return "coroutine"
    if inspect.isasyncgenfunction(method):
        return "generator"
    return "awaiting" if method.__name__ == "__await__" else "function"


def _parameters(method: Method) -> tuple[str, str, dict[str, object]]:
    """Return how a method's parameters are declared and passed on, and its defaults by the names used there."""
    try:
        parameters = list(inspect.signature(method, follow_wrapped=False).parameters.values())
    except ValueError:  # of a method that is not written in Python
        parameters = []
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if not 0 < len(parameters) <= _MOST or any(each.kind in variable for each in parameters):
        return "self, /, *args, **kwargs", "self, *args, **kwargs", {}
    defaults: dict[str, object] = {}
    plain: list[inspect.Parameter] = []
    for number, each in enumerate(parameters):
        bare = each.replace(annotation=inspect.Parameter.empty)
        if each.default is not inspect.Parameter.empty:
            defaults[f"_homeloop_{number}"] = each.default
            bare = bare.replace(default=_Name(f"_homeloop_{number}"))
        plain.append(bare)
    declared = str(inspect.Signature(plain))[1:-1]
    by_name = (f"{each.name}={each.name}" if each.kind is each.KEYWORD_ONLY else each.name for each in plain)
    return declared, ", ".join(by_name), defaults


class _Name(str):
    """A name that shows as itself, without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)
