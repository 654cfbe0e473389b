"""One call: a function on its way to a loop, its task there, and its outcome on the way back."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextvars import Context
from types import CoroutineType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from homeloop.runtime._probe import await_chain, callable_name

if TYPE_CHECKING:
    from homeloop.runtime._places import Place

T = TypeVar("T")

_MISSING = object()
_TRACEBACK = vars(BaseException)["__traceback__"]


def finish_call(call: "Call[Any]") -> None:
    """Wake the caller of a call that nobody keeps a list of; for `Call.drive`."""
    call.finish()


class Call(Generic[T]):
    """
    A call's whole state.

    Made by the caller, started, cancelled and finished on the loop's thread only. ``reply`` is
    what wakes the caller; it is called exactly once, after ``value`` or ``error`` is set. Only a
    call whose loop is blocked for good is finished by another thread, see `leave`.
    """

    # Defaults of the class, not set for each call: most calls never change them.
    task: asyncio.Task[None] | None = None
    error: BaseException | None = None
    begun = False
    driven = False  # its task has taken its first step
    finished = False
    place: "Place | None" = None  # one of `max_in_flight`, held
    queued = False  # it waited for a place of `max_in_flight`
    unwanted = False  # cancelled before it was started: it never starts
    cancelled_at_loop = False
    waiting_at: tuple[str, ...] = ()
    title: str | None = None  # for people, where the function's own name would tell nothing
    undriven: Callable[[object], None] | None = None  # called when the task ends without a first step

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
        return self.title or callable_name(self.fn)

    async def drive(self, done: "Callable[[Call[Any]], None]") -> None:
        """
        Run the function in the current task, keep its outcome, whatever it is, and tell ``done``.

        BaseException too: a SystemExit that left the task would end the loop for everybody.
        """
        self.driven = True
        if self.task is not None and self.undriven is not None:
            self.task.remove_done_callback(self.undriven)  # else the loop would take a turn for it
            self.undriven = None
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
        reply = vars(self).pop("reply", None)  # in one step: two threads may try
        if reply is None:
            return
        self.finished = True
        # Let go of what refers to us, or to the user's objects, so that nothing waits for the collector.
        self.task = self.undriven = None
        del self.args
        reply()

    def leave(self, error: BaseException) -> None:
        """Tell the caller that its loop does not go on. Thread: any, also while the loop finishes it after all."""
        reply = vars(self).pop("reply", None)
        if reply is not None:
            self.error = error
            self.finished = True
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
        if error is not None:
            traceback = traceback_of(error)
            if traceback is not None and traceback.tb_frame.f_globals is globals():
                set_traceback(error, traceback.tb_next)
        return error

    def bring_context_back(self) -> None:
        """Set what the function changed of its context variables, and nothing else, for the caller."""
        before = self.before
        for var, value in self.context.items():
            if before.get(var, _MISSING) is not value:
                var.set(value)


def traceback_of(error: BaseException) -> TracebackType | None:
    """Return an error's traceback, whatever its class thinks of attributes."""
    return cast("TracebackType | None", _TRACEBACK.__get__(error))


def set_traceback(error: BaseException, traceback: TracebackType | None) -> None:
    """Set an error's traceback, also that of a frozen dataclass, which refuses assignment."""
    BaseException.with_traceback(error, traceback)
