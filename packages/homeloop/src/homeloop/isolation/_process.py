"""The process tier: kept workers, forked from a template, each lent to one scope at a time."""

import asyncio
import itertools
import os
import pickle
import sys
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any

from homeloop._user import current_user
from homeloop.errors import (
    CallTimeoutError,
    ExecutorClosedError,
    NotTransferableError,
    RuntimeClosedError,
    RuntimeDiedError,
)
from homeloop.isolation._crew import Crew
from homeloop.isolation._forge import Forge, check_startable
from homeloop.isolation._lending import Borrower, Lease, Lending, Place
from homeloop.isolation._packed_error import unpack_error
from homeloop.isolation._path import import_path
from homeloop.isolation._statistics import Tally
from homeloop.isolation._tier import Signs, Work
from homeloop.isolation._transfer import dump_call, dump_named, dump_variables, dumps, loads_aside
from homeloop.isolation._worker import Answer, Request, WorkerOptions
from homeloop.runtime import LoopRuntime, forget_in_child, keep_untouched, loop_ending, outlast

_NEARLY = 0.75  # of the memory limit: beyond it a worker is replaced before it fails
_SWEEP = 0.4  # of the grace: for leftover tasks


class Processes:
    """
    The workers of one executor.

    Thread: made on any; everything else on the executor's loop, unless it says otherwise.
    """

    def __init__(
        self,
        name: str,
        home: LoopRuntime,
        tally: Tally,
        size: int | None,
        on_keep: Callable[[], object],
        *,
        grace: float,
        terminate_grace: float,
        block_threshold: float,
        preload: tuple[str, ...],
        initializer: Callable[[], object] | None,
        max_runs: int | None,
        max_memory_bytes: int | None,
    ) -> None:
        self.lending: Lending[Crew] = Lending(name, size or _cpus(), on_keep)
        self.home = home
        self.rooms = itertools.count(1)
        self._name = name
        self._tally = tally
        self._grace = grace
        self._terminate_grace = terminate_grace
        self._preload = preload
        self._max_runs = max_runs
        self.max_memory = max_memory_bytes
        packed = None if initializer is None else dumps("the initializer", initializer)
        # What every worker must find, whatever it is asked for later.
        self.named = (packed or b"", *(each.encode() for each in preload))
        self.path = import_path(*self.named)
        self._options = WorkerOptions(grace, grace * _SWEEP, block_threshold, max_memory_bytes, packed)
        self._forge: Forge | None = None
        self._forging: asyncio.Lock | None = None
        self._crews: set[Crew] = set()
        self._starting: set[Crew] = set()
        self._ends: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None
        forget_in_child(self)

    @property
    def is_started(self) -> bool:
        """Whether there is anything to close. Thread: any."""
        return self._forge is not None or self._closing is not None

    def _take_kept(self) -> Crew | None:
        while (crew := self.lending.take()) is not None:
            if crew.is_there:
                return crew
        return None

    async def _start(self) -> Crew:
        forge = await self._forge_ready()
        crew = Crew(self._name, forge, self._grace, self._terminate_grace)
        self._starting.add(crew)
        try:
            await crew.start()
        finally:
            self._starting.discard(crew)
        self._crews.add(crew)
        crew.on_end = partial(self._note_end, crew)
        if self.lending.is_closed:  # while others were ending
            await crew.end("the executor was closed")
            raise ExecutorClosedError(self._name)
        return crew

    async def take(self, work: Work, place: Place[Crew]) -> Crew:
        """
        Return a worker that nobody uses; start one if need be.

        Args:
            place: The borrower's, which is given back if this raises: when a worker that comes too late is there.

        Raises:
            CallTimeoutError: It did not start in the work's time. It will serve the next scope.
        """
        kept = self._take_kept()
        if kept is not None:
            return kept
        # In no run's context: the worker is everybody's, and its wire would keep that as long as it lives.
        taking = asyncio.get_running_loop().create_task(self._start(), context=Context())
        try:
            await asyncio.wait((taking,), timeout=work.left)
            if taking.done():
                return taking.result()
        except BaseException:
            taking.add_done_callback(partial(self._keep_late, place))
            raise
        taking.add_done_callback(partial(self._keep_late, place))
        raise CallTimeoutError(work.name, work.timeout or 0.0, never_began="its process was still starting")

    def _keep_late(self, place: Place[Crew], taking: "asyncio.Future[Crew]") -> None:
        if not taking.cancelled() and taking.exception() is None:
            self.give_back(taking.result(), fit=True)
        place.give_back()

    def give_back(self, crew: Crew, fit: bool) -> None:
        """Keep a worker for the next scope, or replace it."""
        if crew.lost:
            return
        if not fit:
            reason = "something is left in it that cannot be ended"
        elif self._max_runs is not None and crew.runs >= self._max_runs:
            reason = f"it has done its {crew.runs} runs"
        elif self.max_memory is not None and crew.memory > _NEARLY * self.max_memory:
            reason = f"it has allocated {crew.memory} bytes"
        else:
            self.lending.keep(crew)
            return
        self._retire(crew, reason)

    def retire_idle(self, seconds: float) -> None:
        """End the workers that nobody has used for so many seconds."""
        for crew in self.lending.take_idle(seconds):
            self._retire(crew, "nobody needed it")

    def forget_parent(self) -> None:
        """Have no workers, in a forked child, and no descriptors of the parent's. Called by the fork hook."""
        for crew in self._crews:
            crew.close_copies()
        if self._forge is not None:
            self._forge.close_copies()
            keep_untouched((self._crews, self._ends, self._forge, self._forging, self._closing))
        self._crews, self._ends, self._forge, self._forging, self._closing = set(), set(), None, None, None

    async def _forge_ready(self) -> Forge:
        if self._forging is None:
            self._forging = asyncio.Lock()
            loop_ending(asyncio.get_running_loop()).add(self.close, self._lose)
        async with self._forging:
            if self.lending.is_closed:  # a place was given before
                raise ExecutorClosedError(self._name)
            if self._forge is None or not self._forge.is_there:
                check_startable()
                if self._forge is not None:
                    await self._forge.close()
                # What is imported by main programs here has the name that it has over there.
                sys.modules.setdefault("__mp_main__", sys.modules["__main__"])
                self.path = import_path(*self.named)
                forge = Forge(self.path, self._preload, self._options)
                try:
                    await forge.start()
                except BaseException:
                    await forge.close()
                    raise
                self._forge = forge
            return self._forge

    def _retire(self, crew: Crew, reason: str) -> None:
        self._tally.count_ended()
        end = asyncio.get_running_loop().create_task(crew.end(reason))
        self._ends.add(end)
        end.add_done_callback(self._ends.discard)

    def _note_end(self, crew: Crew) -> None:
        self._crews.discard(crew)
        self.lending.drop(crew)
        if not crew.told_to_end:
            self._tally.count_died()

    async def close(self, budget: float | None = None) -> None:
        """End everything; a worker gets its grace, or ``budget`` seconds, of whoever has closed it first."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(budget))
            self._closing.add_done_callback(self._note_closed)
        closing = self._closing
        try:
            await asyncio.wait((closing,))
        except asyncio.CancelledError:  # no time left
            closing.cancel()
            raise

    def _note_closed(self, _: object) -> None:
        self._closing = None

    async def _close(self, budget: float | None) -> None:
        forge, self._forge, self._forging = self._forge, None, None
        for crew in self._starting:
            crew.give_up_start()
        ends = [asyncio.ensure_future(crew.end("the executor was closed", budget)) for crew in tuple(self._crews)]
        try:
            if ends:
                await asyncio.wait(ends)
            if forge is not None:
                await forge.close()
        except asyncio.CancelledError:  # no time left
            for end in ends:
                end.cancel()
            if forge is not None:
                forge.abandon()
            raise

    def _lose(self) -> None:
        """End everything: the loop is gone already."""
        forge, self._forge, self._forging = self._forge, None, None
        self._crews.clear()
        if forge is not None:
            forge.abandon()


class ProcessRoom(Borrower[Crew]):
    """An enclosure in a worker that is lent to this scope alone."""

    def __init__(self, processes: Processes) -> None:
        super().__init__(processes.lending)
        self._processes = processes
        self._number = next(processes.rooms)

    async def run(self, work: Work, last: bool) -> Any:
        """Do the work in the scope's worker. Packed on the caller's thread, where the objects are."""
        self.open_to_callback(work)
        payload = self._pack(work, last)
        answer, pid = await self._processes.home.arun(self._run, work, payload, last)
        work.signs.begun = answer.begun
        work.signs.spilled, work.signs.stubborn = answer.signs.spilled, answer.signs.stubborn
        work.signs.blocked |= answer.signs.blocked
        if answer.error is not None:
            error = unpack_error(answer.error, f"worker process {pid}")
            if isinstance(error, MemoryError) and (limit := self._processes.max_memory) is not None:
                error.add_note(f"this executor's max_memory_bytes lets a process allocate {limit} bytes")
            raise error
        assert answer.value is not None
        try:
            return await loads_aside(answer.value)
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            remedy = "return what can be imported and rebuilt here"
            raise NotTransferableError(f"the result of {work.name}", told, remedy) from error

    async def aclose(self) -> Signs:
        """End what is left in the worker, and give it back."""
        try:
            return await self._processes.home.arun(self._leave)
        except (RuntimeClosedError, RuntimeDiedError):
            self.drop_leases()
            raise
        except asyncio.CancelledError:  # it may have come before `_leave` had begun
            await outlast(asyncio.ensure_future(self._end_by_force()))
            raise

    def _pack(self, work: Work, last: bool) -> bytes:
        call = dump_call(work.name, work.fn, work.args)
        variables = dump_variables(work.carry)
        user = dump_named((), [("the user", current_user())])
        path = import_path(*self._processes.named, call, variables, user)
        request = Request(
            self._number,
            last,
            work.name,
            work.context_id,
            call,
            variables,
            user,
            work.progress.bound is not None,
            work.progress.coalesces,
            None if path == self._processes.path else path,
        )
        return pickle.dumps(request, pickle.HIGHEST_PROTOCOL)

    async def _end_by_force(self) -> None:
        try:
            await self._processes.home.arun(self._let_go)
        except (RuntimeClosedError, RuntimeDiedError):
            self.drop_leases()

    # -- on the executor's loop --------------------------------------------------------------------

    async def _run(self, work: Work, payload: bytes, last: bool) -> tuple[Answer, int]:
        """Return the answer, and the process id of the worker that has given it."""
        if (before := self.lease) is not None and not before.thing.is_there:  # it died between two runs
            self.spend(before)
        lease = await self.join(work)
        crew = lease.thing
        try:
            work.start_at(crew.thread_ident, crew.pid, crew.home)
            answer = await crew.run(work, payload)
            lease.fit &= not answer.signs.stubborn and (
                answer.error is None or answer.error.kind != "builtins.MemoryError"
            )
            return answer, crew.pid
        finally:
            self.leave(lease, last or crew.lost)

    async def _leave(self) -> Signs:
        self.turn_away()
        lease = self.lease
        signs = Signs()
        try:
            if lease is not None:
                lease.fit = False  # unless it answers
                signs = await lease.thing.leave(self._number)
                lease.fit = not signs.stubborn
        finally:
            self.end_leases()
        return signs

    async def _let_go(self) -> None:
        """Give everything back without asking the worker, which then serves nobody else. Idempotent."""
        self.turn_away()
        if self.lease is not None:
            self.lease.fit = False
        self.end_leases()

    async def take(self, work: Work, place: Place[Crew]) -> Crew:
        """Return a kept worker, or a new one."""
        return await self._processes.take(work, place)

    def give_back(self, lease: Lease[Crew]) -> None:
        """Have the worker kept or ended."""
        self._processes.give_back(lease.thing, lease.fit)
        lease.place.give_back()


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
