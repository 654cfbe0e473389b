"""The thread tier: kept runtimes, each with a loop on a thread of its own, lent to one scope at a time."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from homeloop.errors import CallTimeoutError, ExecutorClosedError
from homeloop.isolation._context import live
from homeloop.isolation._enclosure import Enclosure
from homeloop.isolation._lending import Borrower, Lease, Lending, Place, enter
from homeloop.isolation._statistics import Tally
from homeloop.isolation._tier import Errand, Signs, Work
from homeloop.isolation._watch import Watch
from homeloop.runtime import LoopRuntime, allocate_lock, forget_in_child, real_threading


class Threads:
    """The kept runtimes. Thread: any."""

    def __init__(
        self, executor: str, size: int, grace: float, tally: Tally, on_keep: Callable[[], object]
    ) -> None:
        self.lending: Lending[LoopRuntime] = Lending(executor, size, on_keep)
        self._executor = executor
        self._name = f"homeloop-{executor}"
        self._grace = grace
        self._tally = tally
        self._numbers = itertools.count(1)
        self._all: WeakSet[LoopRuntime] = WeakSet()
        self._on: WeakKeyDictionary[LoopRuntime, Any] = WeakKeyDictionary()  # Any: a thread, the original kind
        self._closed = False
        self._lock = allocate_lock()
        forget_in_child(self)

    def take(self) -> LoopRuntime:
        """
        Return a runtime that nobody uses.

        Raises:
            ExecutorClosedError: The executor has been closed since the place was given.
        """
        runtime = self.lending.take()
        if runtime is None:
            name = f"{self._name}-{next(self._numbers)}"
            runtime = LoopRuntime(name=name, grace=self._grace, propagate_context=False)
        with self._lock:
            if self._closed:
                raise ExecutorClosedError(self._executor)
            self._all.add(runtime)
        return runtime

    def forget_parent(self) -> None:
        """Have an unlocked lock, in a forked child. Called by the fork hook."""
        self._lock = allocate_lock()

    def note_thread(self, runtime: LoopRuntime) -> None:
        """Note that a runtime's thread is the current one."""
        self._on[runtime] = real_threading().current_thread()

    def give_back(self, lease: Lease[LoopRuntime]) -> None:
        """Keep a runtime for the next scope, unless something is left on it that cannot be ended."""
        runtime = lease.thing
        # A run that was given up may still be there: nobody else should meet it.
        if lease.fit and not runtime.statistics().in_flight and not self._closed:
            self.lending.keep(runtime)
            lease.place.give_back()
        else:
            self.retire(runtime, lease.place)

    def retire(self, runtime: LoopRuntime, place: Place[LoopRuntime] | None = None) -> None:
        """End a runtime without waiting for it here; a thread that is blocked has its place as long."""
        self._tally.count_ended()
        self._start_end(runtime, 1.0, place)

    def close(self, timeout: float) -> None:
        """End all runtimes, at the same time; what runs on them is cancelled and answered."""
        with self._lock:
            self._closed = True
            runtimes = tuple(self._all)
        self.lending.take_idle(0.0)
        for thread in [self._start_end(runtime, timeout) for runtime in runtimes]:
            thread.join()

    def _start_end(self, runtime: LoopRuntime, timeout: float, place: Place[LoopRuntime] | None = None) -> Any:
        # A thread of its own, not one of a loop's executor, which may end before it is done.
        thread = real_threading().Thread(
            target=self._end, args=(runtime, timeout, place), name=f"{runtime.name}-end", daemon=True
        )
        thread.start()
        return thread

    def _end(self, runtime: LoopRuntime, timeout: float, place: Place[LoopRuntime] | None) -> None:
        try:
            runtime.close(timeout)
            if place is not None and (blocked := self._on.get(runtime)) is not None:
                blocked.join()
        finally:
            if place is not None:
                place.give_back()


class ThreadRoom(Borrower[LoopRuntime]):
    """An enclosure on a runtime that is lent to this scope alone."""

    def __init__(self, threads: Threads, watch: Watch, sweep: float) -> None:
        super().__init__(threads.lending)
        self._threads = threads
        self._watch = watch
        self._sweep = sweep
        self._enclosures: dict[LoopRuntime, Enclosure] = {}

    async def run(self, work: Work, last: bool) -> Any:
        """Do the work on the scope's runtime, which it keeps for its other runs."""
        self.open_to_callback(work)
        lease = await self.join(work)
        is_its_own = False

        async def live_on(work: Work, last: bool) -> Any:
            nonlocal is_its_own
            try:
                return await self._live(lease.thing, work, last)
            except CallTimeoutError:  # of a call that the work has made
                is_its_own = True
                raise

        try:
            return await lease.thing.arun(Errand(work, live_on, last), timeout=work.left)
        except CallTimeoutError as late:
            if is_its_own:
                raise
            late.timeout = work.timeout or 0.0
            if late.abandoned:
                self.spend(lease)
            work.signs.abandoned |= late.abandoned
            work.signs.blocked |= bool(late.blocked_at)
            raise
        finally:
            lease.fit &= not work.signs.stubborn
            self.leave(lease, last)

    async def _live(self, runtime: LoopRuntime, work: Work, last: bool) -> Any:
        enclosure = self._enclosures.get(runtime)
        if enclosure is None:
            self._threads.note_thread(runtime)
            enclosure = Enclosure(work.context_id, work.tier.value, self._sweep, exclusive=True)
            self._enclosures[runtime] = enclosure
        enter(self._threads.lending)
        with self._watch.over(asyncio.get_running_loop(), work, enclosure):
            return await live(enclosure, work, last)

    async def aclose(self) -> Signs:
        """End what is left on the runtime, and give it back."""
        self.turn_away()
        signs = Signs()
        lease = self.lease
        try:
            if lease is not None:
                # Twice the time: once for the tasks, once for the resources.
                await lease.thing.arun(self._end_enclosure, lease.thing, signs, timeout=2 * self._sweep)
                lease.fit &= not signs.stubborn
        except CallTimeoutError:
            if lease is not None:
                lease.fit = False  # it has been reported
        except BaseException:
            if lease is not None:
                lease.fit = False
            raise
        finally:
            self.end_leases()
        return signs

    async def _end_enclosure(self, runtime: LoopRuntime, signs: Signs) -> None:
        """Close the enclosure, looked for on its loop: a run that was just handed over has made it by now."""
        if (enclosure := self._enclosures.get(runtime)) is not None:
            enclosure.signs = signs
            await enclosure.aclose()

    async def take(self, work: Work, place: Place[LoopRuntime]) -> LoopRuntime:
        """Return a kept runtime, or a new one."""
        try:
            return self._threads.take()
        except BaseException:
            place.give_back()
            raise

    def give_back(self, lease: Lease[LoopRuntime]) -> None:
        """Have the runtime kept or ended."""
        self._enclosures.pop(lease.thing, None)
        self._threads.give_back(lease)
