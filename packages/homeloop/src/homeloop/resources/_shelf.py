"""The instances of one resource on one loop and in one scope, by key; and which of them may stay."""

import asyncio
import time
from collections.abc import Callable
from contextvars import Context
from typing import Generic, TypeVar

from homeloop.resources._instance import Instance
from homeloop.resources._statistics import Ledger

K = TypeVar("K")
T = TypeVar("T")


class Shelf(Generic[K, T]):
    """
    What a loop has of one resource.

    Whatever is idle may be evicted: the least recently used when there are more than ``max_items``,
    and what nobody used for ``max_idle`` seconds. One timer serves them all, while any is idle.

    ``emptied`` is called when the last instance is forgotten.

    Thread: the loop's own, or any when the loop is closed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ledger: Ledger[Instance[T]],
        max_idle: float | None,
        max_items: int | None,
        emptied: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._ledger = ledger
        self._max_idle = max_idle
        self._max_items = max_items
        self._emptied = emptied
        self._instances: dict[K, Instance[T]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def find(self, key: K) -> Instance[T] | None:
        """Return the instance with this key that is open or being opened."""
        return self._instances.get(key)

    def put(self, key: K, instance: Instance[T]) -> None:
        """Keep an instance, and make room for it."""
        self._instances[key] = instance
        self.settle()

    def forget(self, instance: Instance[T]) -> None:
        """Do not hand an instance out any more."""
        for key, each in self._instances.items():
            if each is instance:
                del self._instances[key]
                break
        else:
            return  # before; the loop may have another shelf since then
        if not self._instances:
            self._emptied()
            if self._timer is not None and not self._loop.is_closed():
                self._timer.cancel()
                self._timer = None

    def settle(self) -> None:
        """Evict what is too much, and have the timer run if anything is idle."""
        if self._max_items is not None and len(self._instances) > self._max_items:
            idle = sorted(self._idle(), key=lambda instance: instance.used)
            for instance in idle[: len(self._instances) - self._max_items]:
                self._evict(instance)
        if self._max_idle is not None and self._timer is None:
            first = min((instance.used for instance in self._idle()), default=None)
            if first is not None:
                rest = first + self._max_idle - time.monotonic()
                self._timer = self._loop.call_later(max(rest, 0.0), self._evict_idle, context=Context())

    def abandon(self) -> None:
        """Forget everything without touching it: it is a parent process's."""
        self._instances = {}

    def _idle(self) -> list[Instance[T]]:
        return [instance for instance in self._instances.values() if instance.is_idle]

    def _evict_idle(self) -> None:
        self._timer = None
        if self._max_idle is not None:
            idle_since = time.monotonic() - self._max_idle
            for instance in self._idle():
                if instance.used <= idle_since:
                    self._evict(instance)
        self.settle()

    def _evict(self, instance: Instance[T]) -> None:
        instance.forget()
        self._ledger.count_evicted()
        instance.start_closing()
