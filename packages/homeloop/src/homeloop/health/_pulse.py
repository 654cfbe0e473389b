"""The pulse of one loop: asked for a sign of life, it tells how late that was, and how busy it is."""

import asyncio
import re
import time
from collections import deque
from dataclasses import dataclass, replace
from weakref import ref

from homeloop._affinity import Affinity
from homeloop._events import LoopResumed, LoopStalled, emit
from homeloop.health._census import running_task
from homeloop.runtime import get_ident, loop_affinity, thread_stack

_SAMPLES = 240  # of lag that are kept of a loop: two minutes with the default thresholds
_CHART = 80  # samples of a chart
_FRAMES = 16  # of a blocking stack, the loop's own included
_LOOPS_OWN = re.compile(
    r"events\.py:\d+ in (Handle\.)?_run|_home\.py:\d+ in (Home\.)?run_forever|_call\.py:\d+ in (Call\.)?drive"
)
"""The frames that have called what runs on a loop: asyncio's, homeloop's around uvloop's, and a call's."""


@dataclass(frozen=True, slots=True)
class Lag:
    """
    How long a loop took to answer, in seconds: what waits for its turn there waits as long.

    Attributes:
        p50, p99, max: Of the last ``samples`` answers, the one included that is awaited while the loop is blocked.
    """

    p50: float
    p99: float
    max: float
    samples: int


@dataclass(frozen=True, slots=True)
class Stall:
    """
    A time for which a loop did not run.

    Attributes:
        since: When it was asked and did not answer, in seconds of `time.monotonic`.
        seconds: How long it did not answer, so far if it still does not.
        blocked_at: The stack of its thread, outermost first, from what the loop has called.
        task: The task that ran there; None if it was no task that did.
    """

    since: float
    seconds: float
    blocked_at: tuple[str, ...]
    task: str | None


@dataclass(frozen=True, slots=True)
class _Answer:
    at: float  # monotonic
    cpu: float  # seconds that the thread has worked in all its life
    ident: int


class Pulse:
    """
    One loop, asked for a sign of life again and again, which it gives when it comes to that.

    Only `_answer` runs on the loop's thread; all else on the watchdog's, except that anybody may read.

    Args:
        name: For people.
        home: The loop as it is known; corrected if it answers from another thread.
        ident: That thread's number.
        is_ours: Whether a runtime owns it.

    Attributes:
        stall: What keeps the loop from running now; None if nothing does.
        last_stall: The last one that is over.
        watches: Those who asked for it, other than the runtime that it is the loop of.
    """

    def __init__(
        self, name: str, loop: asyncio.AbstractEventLoop, home: Affinity, ident: int, *, is_ours: bool
    ) -> None:
        self.name = name
        self.home = home
        self.is_ours = is_ours
        self.stall: Stall | None = None
        self.last_stall: Stall | None = None
        self.watches: set[object] = set()
        self._loop = ref(loop)  # nobody's loop is kept
        self._ident = ident
        self._asked: float | None = None  # monotonic
        self._void = False  # it was not running meanwhile, so its answer tells nothing
        self._answer_given: _Answer | None = None
        self._last_answer: _Answer | None = None
        self._seen_at: tuple[str, ...] = ()  # what its thread did when it had not answered
        self._lags: deque[tuple[float, float]] = deque(maxlen=_SAMPLES)  # when it was asked, how late it was
        self._shares: deque[tuple[float, float]] = deque(maxlen=_SAMPLES)  # busy seconds, of so many

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop, unless it is closed or gone."""
        loop = self._loop()
        return None if loop is None or loop.is_closed() else loop

    def look(self, blocked_after: float) -> None:
        """
        Take its answer and ask anew; or see what it does instead.

        Args:
            blocked_after: Seconds without an answer after which it counts as blocked.
        """
        loop = self.loop
        if loop is None:
            return
        if self._asked is not None:
            if self._answer_given is not None:
                self._settle(self._asked, self._answer_given, blocked_after)
            elif not loop.is_running():
                self._void = True
            elif not self._void:
                self._suspect(loop, time.monotonic() - self._asked, blocked_after)
        if self._asked is None and loop.is_running():
            self._ask(loop)

    def lag(self) -> Lag | None:
        """Return how late it answers; None if it was never asked. Thread: any."""
        lags = sorted(lag for _, lag in self._lags.copy())
        if self.stall is not None:
            lags.append(max(self.stall.seconds, lags[-1] if lags else 0.0))
        if not lags:
            return None
        last = len(lags) - 1
        return Lag(lags[last // 2], lags[last * 99 // 100], lags[last], len(lags))

    def utilisation(self) -> float | None:
        """Return the share of the time, at least, for which it was busy; None if not known yet. Thread: any."""
        shares = self._shares.copy()
        seconds = sum(all_of for _, all_of in shares)
        return sum(busy for busy, _ in shares) / seconds if seconds else None

    def history(self) -> dict[str, list[list[float]]]:
        """Return lag and load of the last minutes, for charts: how long ago, and how much. Thread: any."""
        now = time.monotonic()
        lags = [[now - asked, lag] for asked, lag in self._lags.copy()]
        # The last answer ends the last share; each begins where the one before it ends.
        loads: list[list[float]] = []
        end = 0.0 if self._last_answer is None else now - self._last_answer.at
        for busy, passed in reversed(self._shares.copy()):
            loads.append([end, busy / passed if passed else 0.0])
            end += passed
        told = {"lag": _thinned(lags), "load": _thinned(loads[::-1])}
        if (stall := self.stall) is not None:
            told["lag"] += [[stall.seconds, 0.0], [0.0, stall.seconds]]  # it has waited ever longer
            told["load"] += [[stall.seconds, 1.0], [0.0, 1.0]]
        return told

    def _ask(self, loop: asyncio.AbstractEventLoop) -> None:
        self._void, self._answer_given, self._seen_at = False, None, ()
        self._asked = time.monotonic()
        try:
            loop.call_soon_threadsafe(self._answer)
        except RuntimeError:  # closed since we looked
            self._asked = None

    def _answer(self) -> None:
        ident = get_ident()
        if ident != self._ident:
            self._ident = ident
            self.home = loop_affinity(asyncio.get_running_loop())
        self._answer_given = _Answer(time.monotonic(), time.thread_time(), ident)

    def _settle(self, asked: float, answer: _Answer, blocked_after: float) -> None:
        self._asked = None
        before, self._last_answer = self._last_answer, answer
        stall, self.stall = self.stall, None
        if self._void:
            self._last_answer = None
            return
        lag = answer.at - asked
        self._lags.append((asked, lag))
        if before is not None and before.ident == answer.ident:
            # The thread's CPU time does not tell of a loop that sleeps in a call, its lag not of one that works
            # between our questions: it was busy for the longer of the two at least.
            passed = answer.at - before.at
            self._shares.append((min(passed, max(answer.cpu - before.cpu, lag)), passed))
        if stall is not None:
            self.last_stall = replace(stall, seconds=lag)
            emit(LoopResumed(self.name, self.home, lag))
        elif lag >= blocked_after:  # it went on before we saw that it was
            self.last_stall = Stall(asked, lag, self._seen_at, None)
            emit(LoopStalled(self.name, self.home, lag, self.last_stall.blocked_at, None))

    def _suspect(self, loop: asyncio.AbstractEventLoop, waited: float, blocked_after: float) -> None:
        self._seen_at = called_by_loop(thread_stack(self._ident, _FRAMES))
        if waited < blocked_after or self._answer_given is not None:
            return
        task = running_task(loop)
        told = self.stall is not None
        assert self._asked is not None
        self.stall = Stall(self._asked, waited, self._seen_at, task)
        if not told:
            emit(LoopStalled(self.name, self.home, waited, self._seen_at, task))


def _thinned(samples: list[list[float]]) -> list[list[float]]:
    """Return at most so many samples as a chart is wide, the worst of each few."""
    together = -(-len(samples) // _CHART) or 1
    parts = (samples[at : at + together] for at in range(0, len(samples), together))
    return [[round(part[-1][0], 1), round(max(value for _, value in part), 5)] for part in parts]


def called_by_loop(stack: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out the loop's own frames, which are the same in every stack; all of it if there are no others."""
    for depth in range(len(stack) - 1, -1, -1):
        if _LOOPS_OWN.fullmatch(stack[depth]):
            return stack[depth + 1 :] or stack
    return stack
