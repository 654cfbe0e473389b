"""The health monitor: watches the loops of a process from a thread of its own, and tells how they are."""

import asyncio
import atexit
import math
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from homeloop._events import (
    Event,
    HealthAssessed,
    HealthRestored,
    HealthWorsened,
    InterpreterStalled,
    RuntimeStarted,
    add_instrument,
    emit,
    logger,
)
from homeloop._figures import resource_sources
from homeloop.health._census import Loop, LoopTasks, take_census
from homeloop.health._describing import affinity_elsewhere, describe_unknown, describe_watched
from homeloop.health._door import Door
from homeloop.health._incidents import Incidents
from homeloop.health._judgement import judge, size, status_of
from homeloop.health._page import HealthPage
from homeloop.health._peaks import Peaks
from homeloop.health._pulse import Pulse, called_by_loop
from homeloop.health._report import HealthReport, LoopHealth
from homeloop.health._stacks import tell_stacks, tell_threads
from homeloop.health._thresholds import HealthThresholds
from homeloop.health._tree import TaskTree, jobs_of
from homeloop.health._watchdog import THREAD_NAME, Watchdog
from homeloop.runtime import (
    RLock,
    check_seconds,
    forget_in_child,
    get_ident,
    loop_affinity,
    open_runtimes,
    real_threading,
    thread_stacks,
)

_WAITING = re.compile(
    r"(threading|selectors|queue|socket|_workers|_waiting)\.py:|thread\.py:\d+ in _worker$"
    r"|eventio\.py:\d+ in _epoll\.poll$|unix_events\.py:\d+ in (\w+\.)?_do_waitpid$"
)
"""The innermost frame of a thread that does not hold the interpreter's lock: it waits."""


_FRAMES = 50  # of a thread's stack
_CHARTS = 50  # loops whose last minutes are told


class HealthMonitor:
    """
    Watch the loops of this process: those of its runtimes, and those that it is told of.

    A thread of the monitor's own asks each loop for a sign of life, twice in the time after which it counts as
    blocked. It is there from the first loop that there is to watch until `stop`, and anew in a forked child
    from the first loop there. Once an interval everything is assessed; what was not found the last time is logged,
    as an event `HealthWorsened`.

    Findings, by kind: ``loop-blocked`` (critical while it lasts), ``loop-lagging``, ``loop-busy``,
    ``tasks-piling-up``, ``task-left``, ``call-abandoned``, ``calls-waiting``, ``workers-short``,
    ``resource-waiting``, ``pool-exhausted``, ``resource-lost``, ``runtime-lost``, ``worker-lost``,
    ``callback-failed``, ``loop-fault``, ``interpreter-stalled``.

    Args:
        thresholds: Beyond which figures become findings.
        answers_owner: Whether the same user's other processes may ask, ``homeloop ps`` for one, over a
            socket that nobody else can reach. One monitor of a process can have it; the default one does.

    Thread: any, for every method.
    """

    def __init__(self, *, thresholds: HealthThresholds | None = None, answers_owner: bool = False) -> None:
        self.thresholds = thresholds or HealthThresholds()
        self._answers_owner = answers_owner
        self._interval = 30.0
        self._unhear: Callable[[], None] | None = None  # there while it is started
        self._watchdog: Watchdog | None = None
        self._door: Door | None = None
        self._page: HealthPage | None = None
        self._listeners: tuple[Callable[[HealthReport], object], ...] = ()
        self._forget_all()
        forget_in_child(self)

    def start(self, interval: float = 30.0) -> None:
        """
        Begin to watch. Called again, it changes the interval.

        Called where a loop is running, that loop is watched, too, as `watch_loop` does.

        Args:
            interval: Seconds between two assessments. Loops that are blocked are found between them.

        Raises:
            TypeError, ValueError: The interval is no number of seconds, or not above 0. Nothing was changed.
            RuntimeError: The system gives no thread. The next loop, or `report`, tries again.
        """
        check_seconds("interval", interval)
        if interval == 0:
            raise ValueError("interval is above 0")
        with self._lock:
            self._interval = interval
            self._assess_at = time.monotonic() + interval
            if self._unhear is None:
                self._unhear = add_instrument(self)
                atexit.register(self.stop)
        if (loop := _running_loop()) is not None:
            self.watch_loop(loop)
        self._begin_if_needed()

    def stop(self, timeout: float = 5.0) -> bool:
        """
        Stop watching, and forget the loops that it was told of. Does nothing if it is not started.

        Args:
            timeout: Seconds to wait for the thread, which ends at once unless an instrument or a logging handler
                keeps it.

        Returns:
            Whether there is no thread any more.
        """
        with self._lock:
            unhear, self._unhear = self._unhear, None
            watchdog, self._watchdog = self._watchdog, None
            door, self._door = self._door, None
            page, self._page = self._page, None
        if unhear is not None:
            unhear()
            atexit.unregister(self.stop)
        if door is not None:
            door.close()
        ended = page is None or page.stop(timeout)
        ended = (watchdog is None or watchdog.stop(timeout)) and ended
        self._pulses.clear()
        return ended

    def watch_loop(self, loop: Loop | None = None, *, name: str | None = None) -> Callable[[], None]:
        """
        Watch a loop that is no runtime's: a server's, a notebook's, a test's. Needed once for each.

        It is not kept, and no longer watched once it is closed.

        Args:
            loop: The running one by default.
            name: For people, and for metrics; its thread's name by default.

        Returns:
            A function that ends the watching; calling it twice is harmless.

        Raises:
            RuntimeError: No loop was given and none is running.
        """
        running = _running_loop()
        watched = loop or asyncio.get_running_loop()
        home = loop_affinity(watched) if watched is running else affinity_elsewhere(watched)
        pulse = Pulse(name or home.thread, watched, home, get_ident() if watched is running else 0, is_ours=False)
        pulse = self._pulses.setdefault(home.loop, pulse)  # it may be watched already
        if self.is_started:
            self._begin()

        def unwatch() -> None:
            if self._pulses.get(home.loop) is pulse:
                del self._pulses[home.loop]

        return unwatch

    def report(self) -> HealthReport:
        """
        Tell how the loops are now.

        Tasks, calls and resources are counted at the call, which takes some 0.7 ms per 1,000 tasks; lag, load and
        what blocks are as they were when the thread last looked. Without `start` there is no such thread, and
        nobody hears of incidents.
        """
        if self.is_started:
            self._begin_if_needed()
        self._take_in_runtimes()
        loops = self._loops()
        runtimes = self._peaks.of_runtimes(open_runtimes())
        resources = self._peaks.of_resources(resource_sources())
        incidents = self._incidents.recent(self.thresholds.memory)
        findings = judge(loops, runtimes, resources, incidents, self.thresholds)
        return HealthReport(
            status=status_of(findings),
            monitored=self.is_started,
            pid=os.getpid(),
            taken_at=time.time(),
            findings=findings,
            hints=size(runtimes, resources),
            loops=loops,
            runtimes=runtimes,
            resources=resources,
            incidents=incidents,
            counts=self._incidents.counts(),
        )

    def serve(
        self, port: int = 0, *, host: str = "127.0.0.1", token: str | None = None, names: Iterable[str] = ()
    ) -> HealthPage:
        """
        Serve a live page of this process, and of this user's others that have a started monitor, until `stop`.

        Print its ``address``, which has the token, for whoever may look. What is shown of a loop's lag and of
        what blocks it needs `start`. A forked child serves nothing: its parent's page shows it.

        Args:
            port: The system chooses one if it is 0.
            host, token, names: See `HealthPage`.

        Raises:
            OSError: The address is in use, as by another process of several that run the same program, or it is
                none of this machine's.
            RuntimeError: It is served already, or the system gives no thread.
            ValueError: The token is too short, or has other characters than ``-``, ``_``, letters and digits.
        """
        page = HealthPage(self._tell_page, host=host, port=port, token=token, names=names)
        with self._lock:
            if self._page is not None and self._page.is_started:
                raise RuntimeError("the page is served already; stop() of what serve() returned ends it")
            page.start()
            self._page = page
        return page

    def listen(self, listener: Callable[[HealthReport], object]) -> Callable[[], None]:
        """
        Have a function called with the report of each assessment, on the monitor's thread.

        It must return soon, for nobody looks after the loops meanwhile. An error of its is logged. A forked child
        calls it, too.

        Returns:
            A function that takes it off again; calling it twice is harmless.
        """
        self._listeners = (*self._listeners, listener)

        def unlisten() -> None:
            self._listeners = tuple(each for each in self._listeners if each is not listener)

        return unlisten

    @property
    def is_started(self) -> bool:
        """Whether `start` was called, and `stop` was not since."""
        return self._unhear is not None

    def notify(self, event: Event) -> None:
        """Hear of an event; see `Instrument`."""
        self._incidents.note(event)
        if isinstance(event, RuntimeStarted) and self._watchdog is None and self.is_started:
            try:
                self._begin()
            except RuntimeError:  # no more threads: the interpreter exits
                pass

    def forget_parent(self) -> None:
        """Watch nothing of the parent's, in a forked child. Called by the fork hook."""
        if self._door is not None:
            self._door.leave_to_parent()
        self._watchdog = self._door = self._page = None
        self._forget_all()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # -- inside -----------------------------------------------------------------------------------

    def _forget_all(self) -> None:
        self._lock = RLock()  # re-entered by signal handlers
        self._pulses: dict[int, Pulse] = {}  # by the loop's number
        self._incidents = Incidents()
        self._peaks = Peaks()
        self._tree = TaskTree()
        self._found: frozenset[tuple[str, str]] = frozenset()
        self._due = 0.0  # monotonic: when the watchdog wants to look again
        self._assess_at = 0.0  # monotonic

    def _begin_if_needed(self) -> None:
        if self._watchdog is None and (self._pulses or any(each.residence() for each in open_runtimes())):
            self._begin()

    def _begin(self) -> None:
        with self._lock:
            if self._watchdog is not None:
                return
            self._due = 0.0
            watchdog = Watchdog(self._look, pause=self.thresholds.blocked)
            watchdog.start()
            self._watchdog = watchdog
            if self._answers_owner:
                self._open_door()

    def _open_door(self) -> None:
        door = Door(
            {
                "report": self._tell_owner,
                "stacks": lambda: tell_stacks(self._watched()),
                "page": self._tell_page,
            }
        )
        try:
            door.open()
        except (OSError, AttributeError) as error:  # also where there are no such sockets, or no users
            logger.warning("homeloop ps will not see this process: %s", error)
        else:
            self._door = door

    def _tell_owner(self) -> dict[str, Any]:  # Any: what JSON knows
        return {"command": shlex.join(sys.orig_argv), "parent": os.getppid(), **self.report().as_dict()}

    def _tell_page(self) -> dict[str, Any]:
        report = self._tell_owner()
        watched = self._watched()
        tree = self._tree.tell(watched)
        return {
            "report": report,
            # None: switched off; JSON has no infinity.
            "thresholds": {
                name: limit if math.isfinite(limit) else None for name, limit in asdict(self.thresholds).items()
            },
            "tasks": tree,
            "jobs": jobs_of(tree),
            "threads": tell_threads(),
            "history": {str(pulse.home.loop): pulse.history() for pulse in tuple(watched.values())[:_CHARTS]},
        }

    def _look(self) -> float:
        now = time.monotonic()
        blocked = self.thresholds.blocked
        period = min(self._interval, blocked / 2)
        late = now - self._due if self._due else 0.0
        if late >= blocked:  # at once: who held the interpreter's lock has not gone on yet
            self._tell_of_standstill(late + period, thread_stacks(_FRAMES))
        self._take_in_runtimes()
        for pulse in tuple(self._pulses.values()):
            pulse.look(blocked)
        self._peaks.of_runtimes(open_runtimes())
        if now >= self._assess_at:
            self._assess_at = now + self._interval
            self._assess()
        self._due = time.monotonic() + period
        return period

    def _tell_of_standstill(self, seconds: float, taken: dict[int, tuple[str, ...]]) -> None:
        names = {thread.ident: thread.name for thread in real_threading().enumerate()}
        stacks = [
            (names.get(ident, f"thread {ident}"), *called_by_loop(frames))
            for ident, frames in taken.items()
            if not names.get(ident, "").startswith(THREAD_NAME)
        ]
        suspects = [stack for stack in stacks if not _WAITING.match(stack[-1])]
        emit(InterpreterStalled(seconds, tuple(suspects or stacks)))

    def _take_in_runtimes(self) -> None:
        """Forget the loops that are closed, and take in those that runtimes have opened."""
        for number, pulse in tuple(self._pulses.items()):
            if pulse.loop is None:
                self._pulses.pop(number, None)
        for runtime in open_runtimes():
            residence = runtime.residence()
            if residence is not None:
                home = residence.home
                known = self._pulses.get(home.loop)
                if known is None or not known.is_ours:  # it was taken for a stranger's
                    self._pulses[home.loop] = Pulse(
                        runtime.name, residence.loop, home, residence.thread_ident, is_ours=True
                    )

    def _watched(self) -> dict[Loop, Pulse]:
        return {loop: pulse for pulse in tuple(self._pulses.values()) if (loop := pulse.loop) is not None}

    def _loops(self) -> tuple[LoopHealth, ...]:
        watched = self._watched()
        census = take_census(watched)
        known = [describe_watched(pulse, loop, census.get(loop, LoopTasks())) for loop, pulse in watched.items()]
        others = [
            describe_unknown(loop, tasks)
            for loop, tasks in census.items()
            if loop not in watched and tasks.pending  # else it is of the past, and its tasks are just kept
        ]
        return tuple(sorted((*known, *others), key=lambda each: each.home.loop))

    def _assess(self) -> None:
        report = self.report()
        found = frozenset((finding.kind, finding.subject) for finding in report.findings)
        before, self._found = self._found, found
        new = tuple(str(each) for each in report.findings if (each.kind, each.subject) not in before)
        pending = sum(loop.pending for loop in report.loops)
        langgraph = sum(loop.langgraph for loop in report.loops)
        lag = max((loop.lag.p99 for loop in report.loops if loop.lag is not None), default=0.0)
        emit(HealthAssessed(report.status, len(report.loops), pending, langgraph, lag))
        if new:
            emit(HealthWorsened(report.status, new))
        elif before and not found:
            emit(HealthRestored())
        for listener in self._listeners:
            try:
                listener(report)
            except Exception:
                logger.exception("a listener of the health monitor failed")


def _running_loop() -> Loop | None:
    return asyncio._get_running_loop()  # pyright: ignore[reportPrivateUsage] - documented, returns None
