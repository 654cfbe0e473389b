"""What surrounds the code that asks for a resource: its scope, and what a test put in a resource's place."""

import asyncio
from collections.abc import Generator, Mapping
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import Context, ContextVar, Token
from dataclasses import dataclass
from typing import Any, Protocol

from homeloop.errors import ScopeEndedError
from homeloop.resources._lease import Substitute
from homeloop.runtime import LAST_CHANCE, allocate_lock, forget_in_child, keep_untouched, notice_closed_loops


class Scoped(Protocol):
    """An instance that belongs to a scope."""

    gone: "Future[None]"
    loop: asyncio.AbstractEventLoop
    close_timeout: float

    def give_up(self) -> object:
        """Begin to close it. Thread: its loop's."""
        ...


class Scope(AbstractAsyncContextManager[None, None]):
    """
    The instances that were opened inside one `resource_scope`, on whatever loop, in their order.

    Attributes:
        ended: Set before the first of them is closed; stays set.
        outer: The scope that it was entered in, if it was entered.
    """

    def __init__(self) -> None:
        self.ended = False
        self.outer: Scope | None = None
        self._instances: dict[Scoped, None] = {}  # a set that keeps its order
        self._lock = allocate_lock()
        self._token: Token[Surroundings] | None = None
        forget_in_child(self)

    async def __aenter__(self) -> None:
        if self._token is not None:
            raise RuntimeError("a resource scope is entered once; call resource_scope() again")
        self.outer = Scope.current()
        self._token = self.cover()

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.aclose()
        finally:
            if self._token is not None:
                surroundings.reset(self._token)

    def cover(self) -> "Token[Surroundings]":
        """Have what runs in the current context from now on open its resources in the scope."""
        return surroundings.set(Surroundings(self, surroundings.get().substitutes))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is open in the scope. Thread: any."""
        return not self._instances

    def end(self) -> None:
        """Have nothing opened in the scope any more. Thread: any."""
        with self._lock:
            self.ended = True

    async def aclose(self) -> None:
        """
        End the scope: close what was opened in it, last opened first, each on its own loop.

        Cancellation: stops the waiting; the closing goes on.
        """
        self.end()
        if not self.is_empty:
            closing = asyncio.Task(self._close_all(), loop=asyncio.get_running_loop(), context=Context())
            await asyncio.wait((closing,))

    def new_context(self) -> Context:
        """Return an empty context inside the scope, with the substitutes of the caller."""
        context = Context()
        context.run(surroundings.set, Surroundings(self, surroundings.get().substitutes))
        return context

    @staticmethod
    def current() -> "Scope | None":
        """Return the scope that the calling code opens its resources in. Thread: any."""
        return surroundings.get().scope

    def is_around(self, context: Context) -> bool:
        """Tell whether what runs in a context opens its resources here. Thread: any."""
        around = context.get(surroundings)
        return around is not None and around.scope is self

    def add(self, instance: Scoped, what: str) -> None:
        """
        Close an instance at the scope's end, before all that were added earlier. Thread: any.

        Raises:
            ScopeEndedError: It is too late.
        """
        with self._lock:
            if self.ended:
                raise ScopeEndedError(what)
            self._instances[instance] = None

    def move_last(self, instance: Scoped) -> None:
        """Close an instance before all that were added meanwhile, unless it is being closed. Thread: any."""
        with self._lock:
            if instance in self._instances:
                del self._instances[instance]
                self._instances[instance] = None

    def remove(self, instance: Scoped) -> None:
        """Forget an instance that is gone. Thread: any."""
        with self._lock:
            self._instances.pop(instance, None)

    def forget_parent(self) -> None:
        """Leave, in a forked child, what was opened before to the parent. Called by the fork hook."""
        keep_untouched(self._instances)
        self._instances = {}
        self._lock = allocate_lock()

    async def _close_all(self) -> None:
        while (instance := self._last()) is not None:
            loop = instance.loop
            if loop is asyncio.get_running_loop():
                instance.give_up()
            elif not loop.is_running():
                continue  # it closes the instance at its own end
            else:
                try:
                    loop.call_soon_threadsafe(instance.give_up)
                except RuntimeError:
                    notice_closed_loops()
                    continue
            # It should end by itself; one that ignores its cancellation is not waited for.
            bound = 2 * instance.close_timeout + LAST_CHANCE
            await asyncio.wait((asyncio.wrap_future(instance.gone),), timeout=bound)

    def _last(self) -> Scoped | None:
        with self._lock:
            return self._instances.popitem()[0] if self._instances else None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where code runs: in which scope, and with what in the place of which resources, by owner and key."""

    scope: Scope | None
    substitutes: Mapping[tuple[object, object], Substitute[Any]]


_OUTSIDE = Surroundings(None, {})

surroundings: ContextVar[Surroundings] = ContextVar("homeloop resources", default=_OUTSIDE)


def resource_scope() -> AbstractAsyncContextManager[None]:
    """
    Open resources privately for a while: ``async with resource_scope(): ...``

    Inside it, and in the tasks, threads and calls that start there and take its context along, every
    `LoopLocal` and `KeyedLoopLocal` opens instances of the scope's own; those of the outside, or of
    an outer scope, are neither seen nor closed. At the exit the scope's are closed, last opened
    first, each on its own loop; leases are waited for, at most the resource's ``close_timeout``.
    Code that outlives the scope gets `ScopeEndedError` when it asks for a resource again.

    Thread: one that runs a loop; enter and leave it in the same task.
    Cancellation: stops the waiting at the exit; the closing goes on.
    """
    return Scope()


@contextmanager
def substituted(owner: object, key: object, value: object) -> Generator[None, None, None]:
    """Put ``value`` in the place of the owner's resource, for this context and those copied from it."""
    around = surroundings.get()
    token = surroundings.set(Surroundings(around.scope, {**around.substitutes, (owner, key): Substitute(value)}))
    try:
        yield
    finally:
        surroundings.reset(token)
