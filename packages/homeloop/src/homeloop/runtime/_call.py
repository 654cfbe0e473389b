"""One call: a function on its way to a loop, its task there, and its outcome on the way back."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextvars import Context
from types import CoroutineType
from typing import Any, Generic, TypeVar

from homeloop.runtime._probe import await_chain, callable_name

T = TypeVar("T")

_MISSING = object()


class Call(Generic[T]):
    """
    A call's whole state.

    Made by the caller, started, cancelled and finished on the loop's thread only. ``reply`` is
    what wakes the caller; it is called exactly once, after ``value`` or ``error`` is set.
    """

    # Defaults of the class, not set for each call: most calls never change them.
    task: asyncio.Task[None] | None = None
    error: BaseException | None = None
    begun = False
    finished = False
    unwanted = False  # cancelled before it was started: it never starts
    cancelled_at_loop = False
    waiting_at: tuple[str, ...] = ()

    value: T
    reply: Callable[[], object]

    def __init__(
        self, fn: Callable[..., Awaitable[T]], args: tuple[Any, ...], context: Context, counted: bool = True
    ) -> None:
        self.fn = fn
        self.args = args
        self.context = context
        self.before = context.copy()
        self.counted = counted  # whether it takes a place of `max_in_flight`

    @property
    def name(self) -> str:
        """The function's name, for people."""
        return callable_name(self.fn)

    async def drive(self, done: "Callable[[Call[Any]], None]") -> None:
        """
        Run the function in the current task, keep its outcome, whatever it is, and tell ``done``.

        BaseException too: a SystemExit that left the task would end the loop for everybody.
        """
        try:
            awaitable = self.fn(*self.args)
            if type(awaitable) is not CoroutineType and not inspect.isawaitable(awaitable):
                raise TypeError(
                    f"{self.name} returned {type(awaitable).__name__}, nothing to await: "
                    "homeloop runs async functions; call a sync one directly"
                )
            self.value = await awaitable
        except BaseException as error:
            if self.finished:
                raise  # the coroutine goes down with its loop; the caller has been answered
            self.error = error
        done(self)

    def finish(self) -> None:
        """Wake the caller; the outcome is set."""
        reply = self.reply
        self.finished = True
        # Let go of what refers to us, or to the user's objects, so that nothing waits for the collector.
        self.task = None
        del self.reply, self.args
        reply()

    def refuse(self, error: BaseException) -> None:
        """End a call that will not run any more."""
        self.error = error
        self.finish()

    def cancel(self) -> None:
        """Cancel once, on the loop's thread; what the coroutine makes of it is its own affair."""
        if self.cancelled_at_loop or self.finished:
            return
        self.cancelled_at_loop = True
        if self.task is not None:
            self.waiting_at = await_chain(self.task)
            self.task.cancel()

    def take_error(self) -> BaseException | None:
        """
        Hand out the error, if any, so that nothing here refers to it any more.

        The traceback loses our own frame: it would make a cycle (error, frame, call, error) that
        keeps the user's arguments alive until the garbage collector comes by.
        """
        error, self.error = self.error, None
        traceback = error.__traceback__ if error is not None else None
        if error is not None and traceback is not None and traceback.tb_frame.f_globals is globals():
            error.__traceback__ = traceback.tb_next
        return error

    def bring_context_back(self) -> None:
        """Set what the function changed of its context variables, and nothing else, for the caller."""
        before = self.before
        for var, value in self.context.items():
            if before.get(var, _MISSING) is not value:
                var.set(value)
