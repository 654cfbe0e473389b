"""Progress: what work reports while it runs, on its way to the caller's callback."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextvars import Context, ContextVar, copy_context
from functools import partial
from types import FunctionType
from typing import Any, Literal, Protocol, cast

from homeloop.callbacks import BoundCallback, Delivery, bind_callback
from homeloop.runtime import callable_name, outlast


class Report(Protocol):
    """What a function with a parameter named ``report`` gets: awaiting it waits until the callback has run."""

    async def __call__(self, step: str, percent: float, description: str = "") -> None:
        """Report a step, how far the work has come (0 to 100), and what is being done."""
        ...


Callback = Callable[..., object]  # gets what is reported: step, percent and description, unless fn says otherwise
AnyReport = Callable[..., Awaitable[None]]  # what is reported is the business of those who report and hear

_current: ContextVar[AnyReport | None] = ContextVar("homeloop report", default=None)


def current_report() -> Report:
    """
    Return what reports the progress of the isolated work that the calling code is part of.

    For code that cannot take a ``report`` argument, such as a node of a graph: every task that the work
    starts sees it. Outside isolated work, and where nobody listens, reports go nowhere.
    """
    return cast("Report", _current.get() or _nowhere)


def restore_reporting(report: Report) -> None:
    """Make a report that was current before the current one again."""
    _current.set(cast("AnyReport", report))


async def _nowhere(*_: object) -> None:
    pass


class Hearer:
    """
    A callback that is bound for one run, which may cancel it; errors and events name it after what it calls.

    Thread: one loop's.
    """

    def __init__(self, callback: Callback, on_error: Literal["report", "raise"] = "report") -> None:
        self.__module__, _, name = callable_name(callback).partition(".")
        self.__qualname__ = name.removesuffix("()")
        self.on_error: Literal["report", "raise"] = on_error
        self._callback = callback
        self._hearing: asyncio.Task[Any] | None = None
        self._over = False

    async def __call__(self, *reported: Any) -> None:
        """Have the callback hear a report, unless it is cancelled."""
        if self._over:
            return
        self._hearing = asyncio.current_task()
        try:
            result = self._callback(*reported)
            if isinstance(result, Awaitable):
                await result
        except asyncio.CancelledError:
            if not self._over:  # else it was our doing, and is no failure of the callback's
                raise
        finally:
            self._hearing = None

    def cancel(self) -> None:
        """Cancel the call that runs, and leave out those that have not begun."""
        self._over = True
        if self._hearing is not None:
            self._hearing.cancel()


class Progress:
    """
    The way to one caller's callback, which runs on the caller's loop, in order.

    Thread: made on the caller's, used on any.

    Raises:
        TypeError: What is to be the callback cannot be called.
    """

    def __init__(self, callback: Callback | None) -> None:
        self.bound: BoundCallback[...] | None = None
        self._last: tuple[Any, ...] | None = None
        self._delivery: Delivery | None = None
        self._hearer: Hearer | None = None
        self.context: Context | None = None  # the callback sees what the caller sees, not what the work does
        if isinstance(callback, BoundCallback):
            self.bound = callback
        elif callback is not None:
            if not callable(callback):
                raise TypeError(f"on_progress must be callable or None, got {callback!r}")
            self._hearer = callback if isinstance(callback, Hearer) else Hearer(callback)
            self.bound = bind_callback(self._hearer, on_error=self._hearer.on_error)
        if self.bound is not None:
            self.context = copy_context()

    @property
    def last(self) -> str | None:
        """What was reported last, for people; None if nothing was."""
        return None if self._last is None else _as_text(self._last)

    @property
    def coalesces(self) -> bool:
        """Whether only the latest report counts, so that nobody waits for each."""
        return self.bound is not None and self.bound.coalesces

    @property
    def reporter(self) -> AnyReport | None:
        """What work in this process reports with; None if nobody listens."""
        return None if self.bound is None else self._report

    def send(self, *args: Any) -> Delivery | None:
        """Hand a report to the callback; return its delivery, None if nobody listens."""
        self._last = args
        if self.bound is None or self.context is None:
            return None
        self._delivery = delivery = self.context.copy().run(self.bound, *args)
        return delivery

    async def _report(self, *args: Any) -> None:
        delivery = self.send(*args)
        if delivery is not None and not self.coalesces:
            await delivery

    @property
    def is_settled(self) -> bool:
        """Whether the callback has run for everything that was reported."""
        return self._delivery is None or self._delivery.done()

    async def settle(self, timeout: float | None) -> bool:
        """Wait until the callback has run for everything that was reported; tell whether it has in this time."""
        if self._delivery is not None and not self._delivery.done():
            await asyncio.wait((asyncio.wrap_future(self._delivery),), timeout=timeout)
        return self.is_settled

    @property
    def is_own(self) -> bool:
        """Whether the callback was bound for this run, which may cancel it; else it is somebody's own affair."""
        return self._hearer is not None

    async def end(self, timeout: float | None) -> asyncio.CancelledError | None:
        """
        Cancel the callback and wait until it has ended, at most so many seconds; None for ever.

        One that is not its own is waited for, but not cancelled.

        Returns:
            The cancellation that came meanwhile.

        Thread: the caller's.
        """
        if self._hearer is not None:
            self._hearer.cancel()
        if self._delivery is None or self._delivery.done():
            return None
        return await outlast(asyncio.wrap_future(self._delivery), timeout)


def begin_reporting(
    fn: Callable[..., Awaitable[Any]], args: tuple[Any, ...], report: AnyReport | None
) -> Callable[[], Awaitable[Any]]:
    """
    Bind a function's arguments, ``report`` among them if it takes one; make it the current one.

    Thread: the one where the function will run, in its context.
    """
    _current.set(report)
    name = takes_report(fn, len(args))
    if name is None or (report is None and name == "optional"):
        return partial(fn, *args)
    return partial(fn, *args, report=report or _nowhere)


def takes_report(fn: Callable[..., object], given: int) -> str | None:
    """Tell whether a function wants a ``report`` beside its ``given`` arguments: "needed", "optional" or None."""
    if isinstance(fn, partial):
        keywords = fn.keywords
        return None if "report" in keywords else takes_report(fn.func, given + len(fn.args))
    plain: Any = getattr(fn, "__func__", fn)
    if type(plain) is FunctionType and not plain.__dict__:  # what decorators say of a signature is in there
        code = plain.__code__
        if "report" not in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
            return None
    return _parameter(plain, given + (plain is not fn))


def _parameter(fn: Callable[..., object], given: int) -> str | None:
    try:
        parameters = inspect.signature(fn).parameters
    except (TypeError, ValueError):  # some built-in
        return None
    for position, (name, parameter) in enumerate(parameters.items()):
        if name == "report" and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and position < given:
                return None  # it is one of the arguments
            return "needed" if parameter.default is parameter.empty else "optional"
    return None


def _as_text(args: tuple[Any, ...]) -> str:
    try:
        text = repr(args)
    except Exception as error:
        text = f"<something whose text raised {type(error).__name__}>"
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


_LONGEST = 200  # characters of a last report that an error tells
