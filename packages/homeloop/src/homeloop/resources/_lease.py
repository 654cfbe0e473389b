"""Leases: a resource that is leased is neither closed nor evicted until it is given back."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Leasable(Protocol[T_co]):
    """What can be leased: an open instance, or what a test put in its place."""

    @property
    def value(self) -> T_co:
        """The resource."""
        ...

    def take(self) -> None:
        """Count one more lease."""
        ...

    def give_back(self) -> None:
        """Count one lease less."""
        ...


@dataclass(frozen=True, slots=True)
class Substitute(Generic[T]):
    """What a test put in a resource's place; nobody opens or closes it."""

    value: T

    def take(self) -> None:
        """Do nothing: it is not closed anyway."""

    def give_back(self) -> None:
        """Do nothing."""


class Lease(AbstractAsyncContextManager[T, None]):
    """
    What ``async with local()`` enters, once: tasks that shared one would give back each other's instance.

    Not an asynchronous generator: the loop's end would close that at the same time as the resource.
    """

    def __init__(self, current: Callable[[], Awaitable[Leasable[T]]]) -> None:
        self._current = current
        self._entered = False
        self._held: Leasable[T] | None = None

    async def __aenter__(self) -> T:
        if self._entered:
            raise RuntimeError("a lease is entered once; call the LoopLocal again for another one")
        self._entered = True
        instance = await self._current()  # does not give way after it has looked: still open
        instance.take()
        self._held = instance
        return instance.value

    async def __aexit__(self, *_: object) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.give_back()
