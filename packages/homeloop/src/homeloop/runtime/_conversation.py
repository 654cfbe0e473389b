"""A conversation: sync code that talks, step by step, with one task on a loop, in that task's own context."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from homeloop.errors import LifecycleError

if TYPE_CHECKING:
    from homeloop.runtime._runtime import LoopRuntime

T = TypeVar("T")
_STOP = object()

Step = Callable[..., Any]
"""Runs an async function on the loop and blocks for its result, as a part of a call that is in flight already."""


class Conversation:
    """
    One task on a runtime's loop that takes requests and gives answers, until it ends.

    Async generators and context managers need it: time-outs, cancel scopes and context variables
    that span a ``yield`` must be entered and left by the same task.
    """

    def __init__(
        self, runtime: "LoopRuntime", step: Step, body: Callable[["Conversation"], Awaitable[None]]
    ) -> None:
        self._runtime = runtime
        self._step = step
        self._body = body
        self._task: asyncio.Task[Any] | None = None
        # Bound to a loop by whoever waits first, which is on the runtime's.
        self._requests: asyncio.Queue[Any] = asyncio.Queue()
        self._answers: asyncio.Queue[tuple[Any, BaseException | None]] = asyncio.Queue()
        runtime.submit(self._converse)

    # -- the caller's side, blocking ----------------------------------------------------------------

    def hear(self) -> Any:
        """Return the next answer, None when the task has ended; raise what ended it."""
        return self._step(self._hear)

    def ask(self, request: object) -> Any:
        """Hand over a request and return its answer, as `hear`."""
        return self._step(self._ask, request)

    def tell(self, request: object) -> None:
        """Hand over a request without waiting for anything."""
        self._runtime.submit(self._ask, request)

    # -- the task's side ------------------------------------------------------------------------------

    async def take(self) -> Any:
        """Wait for the next request."""
        return await self._requests.get()

    def answer(self, value: object) -> None:
        """Answer the request that was taken last."""
        self._answers.put_nowait((value, None))

    # -- on the loop ------------------------------------------------------------------------------------

    async def _converse(self) -> None:
        self._task = asyncio.current_task()
        error: BaseException | None = None
        try:
            await self._body(self)
        except BaseException as ended_by:
            error = ended_by
        finally:
            self._task = None
            self._answers.put_nowait((None, error))
            del error  # the frame would keep it, and it the frame

    async def _ask(self, request: object) -> Any:
        self._requests.put_nowait(request)
        return await self._hear()

    async def _hear(self) -> Any:
        try:
            value, error = await self._answers.get()
        except asyncio.CancelledError:  # the waiting caller was interrupted, and so is what it waits for
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait((self._task,))
            raise
        if error is None:
            return value
        try:
            raise error
        finally:
            del error


def iterate(
    runtime: "LoopRuntime", step: Step, items: Callable[[], AsyncGenerator[T, None]]
) -> Generator[T, None, None]:
    """Yield a generator's items; all of it runs in one task, from the first item to its ``finally``."""

    async def body(conversation: Conversation) -> None:
        async with aclosing(items()) as generator:
            while await conversation.take() is not _STOP:
                try:
                    item = await anext(generator)
                except StopAsyncIteration:
                    return
                conversation.answer((item,))

    conversation = Conversation(runtime, step, body)
    while (answer := conversation.ask(None)) is not None:
        try:
            yield answer[0]
        except BaseException:  # closed, collected, or thrown into: the generator's finally runs first
            _stop(runtime, conversation)
            raise


def _stop(runtime: "LoopRuntime", conversation: Conversation) -> None:
    try:
        if runtime.is_current:  # the garbage collector came by on the loop itself: it must not wait there
            conversation.tell(_STOP)
        else:
            conversation.ask(_STOP)
    except LifecycleError:
        pass  # closing the runtime has closed the generator


class Entered(Generic[T]):
    """A sync context manager over an async one, which is entered and left in one task. Made by ``enter``."""

    def __init__(
        self, runtime: "LoopRuntime", step: Step, manager: AbstractAsyncContextManager[T, bool | None]
    ) -> None:
        self._runtime = runtime
        self._step = step
        self._manager = manager
        self._conversation: Conversation | None = None

    def __enter__(self) -> T:
        if self._conversation is not None:
            raise RuntimeError("this context manager was entered before; call enter() again for another one")
        self._conversation = Conversation(self._runtime, self._step, self._body)
        value: T = self._conversation.hear()[0]
        return value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        assert self._conversation is not None
        try:
            self._conversation.ask(error)
        except BaseException as raised:
            # A coroutine cannot raise a StopIteration: Python makes a RuntimeError of it, with it as the cause.
            if error is not None and (raised is error or raised.__cause__ is error):
                error.__traceback__ = traceback  # without the frames of the bridge
                return False  # Python raises it again
            raise
        return error is not None  # the manager has swallowed it

    async def _body(self, conversation: Conversation) -> None:
        async with self._manager as value:
            conversation.answer((value,))
            error: BaseException | None = await conversation.take()
            if error is not None:
                raise error
