"""All instances of one resource in this process: one per loop, scope and key."""

import asyncio
import threading
import time
from functools import partial
from typing import Generic, TypeVar

from homeloop._figures import ResourceStatistics, add_resource_source
from homeloop.errors import WrongThreadError
from homeloop.resources._instance import Instance
from homeloop.resources._lease import Leasable
from homeloop.resources._recipe import Recipe
from homeloop.resources._scope import Scope, surroundings
from homeloop.resources._shelf import Shelf
from homeloop.resources._statistics import Ledger
from homeloop.runtime import (
    allocate_lock,
    forget_in_child,
    keep_untouched,
    loop_ending,
    notice_closed_loops,
    wait_done,
)

K = TypeVar("K")
T = TypeVar("T")
Place = tuple[asyncio.AbstractEventLoop, Scope | None]


class Inventory(Generic[K, T]):
    """
    Hand out the running loop's instance, opening it first if there is none.

    Args:
        recipe: How an instance is made and closed.
        max_idle: Seconds after which an instance that nobody uses is closed; None: never.
        max_items: How many instances a loop keeps in each scope; None: all.
    """

    def __init__(self, recipe: Recipe[K, T], max_idle: float | None = None, max_items: int | None = None) -> None:
        if max_idle is not None and not max_idle > 0:
            raise ValueError(f"max_idle is in seconds and above 0, not {max_idle!r}")
        # Whatever a caller without a type checker passes: a fraction would be a slice's bound, much later.
        whole: object = max_items
        if max_items is not None and (not isinstance(whole, int) or max_items < 1):
            raise ValueError(f"max_items is at least 1, and whole, not {max_items!r}")
        self.name = recipe.name
        self._recipe = recipe
        self._max_idle = max_idle
        self._max_items = max_items
        self._forget_all()
        forget_in_child(self)
        add_resource_source(self)

    async def current(self, key: K) -> Leasable[T]:
        """
        Return the open instance, and do not give way between the last look and the return.

        Raises and cancellation: as `LoopLocal.get`.
        """
        around = surroundings.get()
        if around.substitutes and (substitute := around.substitutes.get((self, key))) is not None:
            return substitute
        place = (asyncio.get_running_loop(), around.scope)
        instance = self._find(place, key)
        if instance is not None and instance.is_open:
            instance.hits += 1
            instance.used = time.monotonic()
            return instance
        del instance  # or an error's traceback would hold the instance, and its task the error
        return await self._current_opening(place, key)

    async def aclose(self, *keys: K) -> None:
        """
        Close what the running loop has in this scope: all of it, or what has these keys, at the same time.

        What is being closed already is waited for, unless it is its own closing that asks.

        Cancellation: stops the waiting; the closing goes on.
        """
        place = (asyncio.get_running_loop(), surroundings.get().scope)
        closings = [
            instance.start_closing()
            for instance in self._ledger.instances()
            if (instance.loop, instance.scope) == place
            and (not keys or instance.key in keys)
            and not instance.is_closed_here
        ]
        if closings:
            await asyncio.wait(closings)

    def close(self, timeout: float) -> None:
        """Close everything, each on its own loop; see `LoopLocal.close`."""
        here = asyncio._get_running_loop()  # pyright: ignore[reportPrivateUsage] - documented, returns None
        places: dict[asyncio.AbstractEventLoop, list[Instance[T]]] = {}
        for instance in reversed(self._ledger.instances()):
            loop = instance.loop
            if loop.is_running():
                places.setdefault(loop, []).append(instance)
        if here in places:
            raise WrongThreadError(f"close() of {self.name}", threading.current_thread().name)
        for loop, instances in places.items():
            try:
                loop.call_soon_threadsafe(_start_closing, instances)
            except RuntimeError:
                pass  # it has ended meanwhile, and the instances with it
        late = sum(not _wait_gone(instances, timeout) for instances in places.values())
        if late:
            raise TimeoutError(f"{self.name} was not closed within {timeout:g} s on {late} of {len(places)} loops")

    def statistics(self) -> ResourceStatistics:
        """Return the counts of this process. Thread: any."""
        notice_closed_loops()
        return self._ledger.statistics()

    def forget_parent(self) -> None:
        """Forget, in a forked child, what stayed with the parent. Called by the fork hook."""
        for shelf in self._shelves.values():
            shelf.abandon()
        keep_untouched((self._shelves, self._ledger))
        self._forget_all()

    def _forget_all(self) -> None:
        self._shelves: dict[Place, Shelf[K, T]] = {}
        self._ledger: Ledger[Instance[T]] = Ledger()
        self._lock = allocate_lock()

    # -- on the loop -------------------------------------------------------------------------------

    async def _current_opening(self, place: Place, key: K) -> Instance[T]:
        """Return the instance as `current` does, when it is not open yet."""
        instance = self._find(place, key)
        try:
            if instance is None:
                instance = self._begin(place, key)
            else:
                instance.hits += 1
            while not instance.is_open:
                await instance.wait_open()
                instance = self._find(place, key) or self._begin(place, key)
            instance.used = time.monotonic()
            return instance
        finally:
            del instance  # as above

    def _find(self, place: Place, key: K) -> Instance[T] | None:
        shelf = self._shelves.get(place)
        return None if shelf is None else shelf.find(key)

    def _begin(self, place: Place, key: K) -> Instance[T]:
        """Begin to open an instance. Raises what `Instance.begin` does."""
        hash(key)  # a key that cannot be kept is refused before anything is opened
        loop, scope = place
        shelf = self._shelves.get(place) or Shelf(
            loop, self._ledger, self._max_idle, self._max_items, partial(self._remove, place)
        )
        recipe = self._recipe
        ending = loop_ending(loop)
        instance = Instance[T](recipe.name, recipe.close_timeout, loop, ending, scope, shelf, self._ledger, key)
        instance.begin(partial(recipe.make, key))
        with self._lock:
            self._shelves[place] = shelf
        shelf.put(key, instance)
        return instance

    def _remove(self, place: Place) -> None:
        with self._lock:
            self._shelves.pop(place, None)


def _start_closing(instances: list[Instance[T]]) -> None:
    for instance in instances:
        instance.start_closing()


def _wait_gone(instances: list[Instance[T]], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    for instance in instances:
        if not wait_done(instance.gone, max(deadline - time.monotonic(), 0.0)):
            notice_closed_loops()
            if not instance.gone.done():
                return False
    return True
