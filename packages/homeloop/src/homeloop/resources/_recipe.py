"""How a resource is made and closed, whatever shape its factory has."""

import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any, Generic, TypeVar

from homeloop.runtime import callable_name

K = TypeVar("K")
T = TypeVar("T")
Close = Callable[[], Awaitable[object]]


class Recipe(Generic[K, T]):
    """A factory, and what closes what it makes; see `LoopLocal` for the shapes it may have."""

    def __init__(
        self,
        factory: Callable[[K], object],
        close: Callable[[T], Awaitable[object]] | None,
        close_timeout: float,
        name: str,
    ) -> None:
        if not close_timeout > 0:
            raise ValueError(f"close_timeout is in seconds and above 0, not {close_timeout!r}")
        if close is not None and not callable(close):
            raise TypeError(f"close is a function of the resource, not {close!r}")
        self.name = name
        self.close_timeout = close_timeout
        self._factory = factory
        self._close = close

    async def make(self, key: K) -> tuple[T, Close]:
        """
        Make a resource on the running loop.

        Returns:
            The resource, and a function that closes it.

        Raises:
            BaseException: What the factory raised.
            TypeError: It gave nothing that could be a resource.
        """
        return await _unnoticed(self._make(key))

    async def _make(self, key: K) -> tuple[T, Close]:
        made: Any = self._factory(key)  # Any: its shape is found out here
        close = self._close
        if close is None and _is_context_manager(made):
            return await made.__aenter__(), lambda: made.__aexit__(None, None, None)
        if inspect.isawaitable(made):
            made = await made
        if made is None:
            raise TypeError(f"the factory of {self.name} gave None; return the resource that it makes")
        if inspect.isasyncgen(made):
            raise TypeError(
                f"the factory of {self.name} gave an async generator; decorate it with"
                " contextlib.asynccontextmanager"
            )
        if close is not None:
            return made, lambda: close(made)
        for name in ("aclose", "close"):
            if (method := getattr(made, name, None)) is not None:
                return made, lambda: _call(method)
        if _is_context_manager(made):
            return await made.__aenter__(), lambda: made.__aexit__(None, None, None)
        return made, _nothing


def named(factory: Callable[..., object], name: str | None) -> str:
    """
    Return a resource's name: the given one, else its factory's.

    Raises:
        TypeError: The factory is none: the usual slip is to pass the resource.
    """
    if not callable(factory):
        raise TypeError(f"pass the function that makes the resource, not the resource: {factory!r}")
    return name or callable_name(factory)


@coroutine
def _unnoticed(opening: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """
    Await an opening while the loop does not notice the asynchronous generators that begin in it.

    A resource made by `contextlib.asynccontextmanager` is such a generator, and so are those it
    entered itself. The loop's end would close them all at the same time, not last opened first and
    not by their ``__aexit__``. The loop's finalizer stays: it closes what the opening gave up.
    """
    step: Callable[[], Any] = partial(opening.send, None)
    while True:
        noticing = sys.get_asyncgen_hooks().firstiter  # of the thread: off during our own steps only
        sys.set_asyncgen_hooks(firstiter=None)
        try:
            awaited = step()
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        finally:
            del step  # it may hold an exception whose traceback holds this frame
            sys.set_asyncgen_hooks(firstiter=noticing)
        try:
            step = partial(opening.send, (yield awaited))
        except BaseException as error:
            step = partial(opening.throw, error)


def _is_context_manager(made: object) -> bool:
    return hasattr(type(made), "__aenter__") and hasattr(type(made), "__aexit__")


async def _call(method: Callable[[], object]) -> None:
    result = method()
    if inspect.isawaitable(result):
        await result


async def _nothing() -> None:
    pass
