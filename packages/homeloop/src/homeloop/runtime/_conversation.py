"""A conversation: sync code that talks, step by step, with one task on a loop, in that task's own context."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from homeloop._events import CleanUpFailed, emit
from homeloop.errors import HomeloopError, LifecycleError
from homeloop.runtime._blocked import pass_on
from homeloop.runtime._call import Call, set_traceback
from homeloop.runtime._probe import callable_name, error_text

if TYPE_CHECKING:
    from homeloop.runtime._runtime import LoopRuntime

T = TypeVar("T")
_STOP = object()


@dataclass(frozen=True, slots=True)
class Line:
    """
    A way to one loop of a runtime, and to none that comes after it.

    Attributes:
        runtime: The runtime's name.
        grace: Seconds that a cancelled task may take to clean up.
        run: Posts a call there and blocks for its result.
        post: Posts a call there.
        begin: Begins a call there, in the midst of another one.
        cancel: Cancels a call there, and sees to it that it is not forgotten if it ignores that.
        check: Raises if the loop is ending, or is another process's.
        needs_place: Whether a conversation that begins now takes a place of its own.
        body: What the caller's code in between is to be run in; see `Place`.
    """

    runtime: str
    grace: float

    run: "Callable[[Call[Any]], Any]"
    post: "Callable[[Call[Any]], None]"
    begin: "Callable[[Call[Any]], None]"
    cancel: "Callable[[Call[Any]], None]"
    check: Callable[[], None]
    needs_place: bool
    body: Callable[[], AbstractContextManager[None]]

    def part(self, name: str, fn: Callable[..., Awaitable[Any]], *args: object) -> "Call[Any]":
        """Return a call that is a part of one that is in flight already: it takes no place of its own."""
        self.check()
        part = Call(fn, args, copy_context(), counted=False)
        part.title = name
        return part

    def is_open(self) -> bool:
        """Tell whether `check` would let a call pass."""
        try:
            self.check()
        except LifecycleError:
            return False
        return True


class Conversation:
    """
    One task on a runtime's loop that takes requests and gives answers, until it ends.

    Async generators and context managers need it: time-outs, cancel scopes and context variables
    that span a ``yield`` must be entered and left by the same task.

    Outcomes of the task travel as values, so that they cannot be taken for the bridge's own errors. Whoever
    made a conversation must `leave` it if it was interrupted at any time, even just before.
    """

    def __init__(self, line: Line, name: str, body: "Body") -> None:
        self._line = line
        self._name = name
        self._task: asyncio.Task[Any] | None = None
        self._left = False  # by a caller who was interrupted
        self._over = False  # the caller knows that the task has ended, or will end without being waited for
        self._part: Call[Any] | None = None  # the step that has not come back
        # Bound to a loop by whoever waits first, which is on the runtime's.
        self._requests: asyncio.Queue[Any] = asyncio.Queue()
        self._answers: asyncio.Queue[tuple[Any, BaseException | None]] = asyncio.Queue()
        # The body refers to who made it, and so often to us: it goes to the call, which lets go of it.
        call: Call[None] = Call(self._converse, (body,), copy_context(), counted=line.needs_place)
        call.title = name
        call.reply = self._let_go
        self._call: Call[None] | None = call

    # -- the caller's side, blocking ----------------------------------------------------------------

    def begin(self) -> Any:
        """Start the task and return its first answer, None when it has ended; raise what ended it."""
        return self._talk(self._begin)

    def ask(self, request: object) -> Any:
        """Hand over a request and return its answer, as `begin`."""
        return self._talk(self._ask, request)

    def tell(self, request: object) -> None:
        """Hand over the last request without waiting for anything."""
        self._over = True
        part = self._line.part(self._name, self._ask_unheard, request)
        part.reply = _nothing
        self._line.post(part)

    def leave(self) -> None:
        """
        Cancel the task, unless it has ended, and wait for its clean-up, at most the grace.

        Not waited for if the last step was refused or did not come back: this thread must not wait then, or the
        loop is blocked.
        """
        call, part, self._part = self._call, self._part, None
        if self._over or call is None or not self._line.is_open():
            return
        self._left = True
        self._line.cancel(call)
        self._over = True
        if part is None or part.finished:
            try:
                self._line.run(self._line.part(self._name, self._settle))
            except HomeloopError:
                pass  # its loop has ended meanwhile, and with it the task

    def drop(self) -> None:
        """Cancel the task, unless it has ended, and wait for nothing. Thread: any, in a finalizer too."""
        call = self._call
        if not self._over and call is not None and self._line.is_open():
            self._left = True
            self._line.cancel(call)

    def _talk(self, step: Callable[..., Awaitable[Any]], *args: object) -> Any:
        self._part = part = self._line.part(self._name, step, *args)
        value, error = self._line.run(part)
        del part.value  # it refers to the error, whose traceback will refer to our frame, and it to the part
        self._part = None  # it refers to us
        if value is None:
            self._over = True
        if error is None:
            return value
        try:
            raise error
        finally:
            del error  # the frame would keep it, and it the frame

    # -- the task's side ------------------------------------------------------------------------------

    async def take(self) -> Any:
        """Wait for the next request."""
        return await self._requests.get()

    def answer(self, value: object) -> None:
        """Answer the request that was taken last."""
        self._answers.put_nowait((value, None))

    # -- on the loop ------------------------------------------------------------------------------------

    async def _converse(self, body: "Body") -> None:
        self._task = asyncio.current_task()
        error: BaseException | None = None
        try:
            error = await body(self)
        except BaseException as ended_by:
            error = ended_by
        finally:
            self._task = None
            self._tell_end(error)
            del error  # the frame would keep it, and it the frame

    def _tell_end(self, error: BaseException | None) -> None:
        if not self._left and self._line.is_open():
            self._answers.put_nowait((None, error))
        else:  # nobody will ask: an answer would only keep the error, and that us
            self._report(error)

    def _report(self, error: BaseException | None) -> None:
        if isinstance(error, Exception):
            emit(CleanUpFailed(self._line.runtime, self._name, error_text(error)))

    def _let_go(self) -> None:
        """Let go of the call; answer for it if it was refused, as `_converse` never begins then."""
        call, self._call = self._call, None
        if call is not None and (error := call.take_error()) is not None:
            self._answers.put_nowait((None, error))

    async def _begin(self) -> Any:
        if self._call is not None:  # else it was left before
            pass_on(self._call)
            self._line.begin(self._call)
        return await self._answers.get()

    async def _ask(self, request: object) -> Any:
        if self._call is not None:  # else it has ended
            pass_on(self._call)
        self._requests.put_nowait(request)
        return await self._answers.get()

    async def _ask_unheard(self, request: object) -> None:
        _, error = await self._ask(request)
        self._report(error)

    async def _settle(self) -> None:
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=self._line.grace)


Body = Callable[[Conversation], Awaitable[BaseException | None]]
"""What the task does, from its start to its end; it may return the exception that it would raise."""


def _nothing() -> None:
    pass


def iterate(
    runtime: "LoopRuntime", line: Callable[[], Line], items: Callable[[], AsyncIterator[T]]
) -> Generator[T, None, None]:
    """Yield a generator's items; all of it runs in one task, from the first item to its ``finally``."""

    async def body(conversation: Conversation) -> None:
        generator = _generator(items())
        try:
            while True:
                try:
                    item = await anext(generator)
                except StopAsyncIteration:
                    return
                conversation.answer((item,))
                del item
                if await conversation.take() is _STOP:
                    return
        finally:
            close = getattr(generator, "aclose", None)  # any async iterator will do
            if close is not None:
                await close()

    to_loop = line()
    conversation = Conversation(to_loop, callable_name(items), body)
    try:
        answer = conversation.begin()
        while answer is not None:
            try:
                with to_loop.body():
                    yield answer[0]
            except BaseException:  # closed, collected, or thrown into: the generator's finally runs first
                _stop(runtime, conversation)
                raise
            answer = conversation.ask(None)
    except BaseException:
        conversation.leave()
        raise


def _generator(made: object) -> Any:  # Any: the generator it should be
    if hasattr(made, "__anext__"):
        return made
    if inspect.iscoroutine(made):
        made.close()
    raise TypeError(f"iterate() needs an async generator function, and it made a {type(made).__name__}")


def _stop(runtime: "LoopRuntime", conversation: Conversation) -> None:
    try:
        if runtime.is_current:  # the garbage collector came by on the loop itself: it must not wait there
            conversation.tell(_STOP)
        else:
            conversation.ask(_STOP)
    except LifecycleError:
        pass  # its loop has ended, and with it the generator


class Entered(Generic[T]):
    """A sync context manager over an async one, which is entered and left in one task. Made by ``enter``."""

    _conversation: Conversation | None = None  # while entered
    _kept: Generator[None, None, None]

    def __init__(self, line: Callable[[], Line], manager: AbstractAsyncContextManager[T, bool | None]) -> None:
        self._line = line
        self._manager = manager
        self._begun = False
        self._around: AbstractContextManager[None] | None = None

    def __enter__(self) -> T:
        if self._begun:
            raise RuntimeError("this context manager was entered before; call enter() again for another one")
        line = self._line()
        conversation = Conversation(line, self._name(), partial(_be_entered, self._manager))
        try:
            self._begun = True
            value: T = conversation.begin()[0]
            self._conversation = conversation
            self._kept = _drop_at_end(conversation)
            next(self._kept)
            self._around = line.body()
            self._around.__enter__()
            return value
        except BaseException:  # also an interrupt that came when it was entered: nobody else would leave it
            self._conversation = None
            self._go_out()
            conversation.leave()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        conversation = self._conversation
        if conversation is None:
            raise RuntimeError("this context manager is not entered: it was left before, or never entered")
        self._go_out()
        try:
            self._conversation = None
            conversation.ask(error)
            if error is None:
                return False
            set_traceback(error, traceback)  # the manager has swallowed it, and must not live on in its frames
            return True
        except BaseException as raised:
            if error is not None and raised is error:
                set_traceback(error, traceback)  # without the frames of the bridge
                return False  # Python raises it again
            conversation.leave()
            raise
        finally:
            self._kept.close()

    def _go_out(self) -> None:
        """Hold the place of the body no longer."""
        around, self._around = self._around, None
        if around is not None:
            around.__exit__(None, None, None)

    def _name(self) -> str:
        function = getattr(self._manager, "func", None)  # as managers have that contextlib makes of a function
        return callable_name(function if inspect.isfunction(function) else type(self._manager))


def _drop_at_end(conversation: Conversation) -> Generator[None, None, None]:
    """
    Drop the conversation when this generator is closed, or freed.

    So what is still entered when nobody refers to it any more is left: an interrupt may strike at the very first
    step of ``__exit__``. Not a ``__del__``, which would run each time, and swallow what strikes there.
    """
    try:
        yield
    finally:
        conversation.drop()


async def _be_entered(
    manager: AbstractAsyncContextManager[Any, bool | None], conversation: Conversation
) -> BaseException | None:
    try:
        async with manager as value:
            conversation.answer((value,))
            error: BaseException | None = await conversation.take()
            if error is not None:
                try:
                    raise error
                finally:
                    del error  # the frame would keep it, and it the frame
    except BaseException as raised:
        return raised  # not raised: Python makes a RuntimeError of a StopIteration that leaves a coroutine
    return None
