"""The worker of a service, started again after it ended with an error, crashed, or was frozen."""

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from workflow_service.local.children import Child, Command
from workflow_service.local.errors import LocalError
from workflow_service.local.supervisor import Supervisor

_FIRST_DELAY = 1.0  # seconds
_LONGEST_DELAY = 30.0  # seconds
_STEADY = 60.0  # seconds a worker must have lived for its end to be a new trouble, not the same one again

_CRASHES = frozenset({signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS})
"""Signals that mean a fault of the process itself: nobody ends a worker by these."""

_LOOKS = 10  # at the pulse, until a worker counts as frozen
_IMPORTS = (
    4  # times the silence that a worker may take until its first beat: it loads a lot, from a cold disk perhaps
)
_LAST_WORDS = 2.0  # seconds to write what its threads do


@dataclass(frozen=True, slots=True)
class WorkerDeath:
    """How a worker ended, in one line; ``again_in`` is in seconds, None if it stays away until it is started."""

    what: str
    log: Path
    again_in: float | None


@dataclass(slots=True)
class Backoff:
    """How long to wait before the next start: twice as long each time, up to a bound."""

    _next: float = field(default=_FIRST_DELAY, init=False)

    def after(self, lived: float) -> float:
        """Return the seconds to wait after a worker that lived for ``lived`` seconds."""
        delay = _FIRST_DELAY if lived >= _STEADY else self._next
        self._next = min(2 * delay, _LONGEST_DELAY)
        return delay


@dataclass(slots=True)
class Silence:
    """For how long a worker has shown no pulse, as far as it was looked at.

    Args:
        pulse: The file that the worker touches.
        patience: Seconds until it counts as frozen; four times that before the first beat.
    """

    pulse: Path
    patience: float
    _beat: int | None = field(default=None, init=False)  # when the file was touched, in ns: compared, not measured
    _silent: float = field(default=0.0, init=False)  # seconds

    def start(self) -> None:
        """Begin anew, for a worker that is about to be started."""
        self.pulse.unlink(missing_ok=True)
        self._beat, self._silent = None, 0.0

    @property
    def interval(self) -> float:
        """Seconds between two looks."""
        return self.patience / _LOOKS

    def look(self, passed: float) -> bool:
        """Return whether the worker counts as frozen, ``passed`` seconds after the last look.

        A look that comes late counts no more than two: what stopped us meanwhile may have stopped the worker, too.
        """
        try:
            beat = self.pulse.stat().st_mtime_ns
        except FileNotFoundError:
            beat = None
        if beat != self._beat:
            self._beat, self._silent = beat, 0.0
            return False
        self._silent += min(passed, 2 * self.interval)
        return self._silent >= self.patience * (_IMPORTS if beat is None else 1)


class WorkerKeeper:
    """Keeps a worker running through errors of its own, such as a broker that went away at a bad moment.

    One that crashes is started again, too, and so is one that is frozen: it is told by SIGABRT to write down what
    its threads do, then killed; what it worked on goes to the next one when the lease is over. Whoever ends a
    worker by another signal, or asks it to finish, meant it: then it stays away.

    Args:
        supervisor: Starts and ends it.
        command: The worker, told to touch ``pulse``.
        pulse: The file that a worker touches again and again while it can work.
        patience: Seconds without that until it counts as frozen; 0 is for ever.
        on_death: Called on the loop when it has ended by itself, crashed, or was killed because it was frozen.

    Thread: the loop's.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        command: Command,
        pulse: Path,
        patience: float,
        on_death: Callable[[WorkerDeath], None],
    ) -> None:
        self._supervisor = supervisor
        self._command = command
        self._on_death = on_death
        self._silence = Silence(pulse, patience)
        self._backoff = Backoff()
        self._started = 0.0  # loop time
        self._timer: asyncio.TimerHandle | None = None
        self._frozen: Child | None = None
        self._is_closed = False

    def start(self) -> None:
        """Start the worker.

        Raises:
            LocalError: The system refused to start it.
        """
        loop = asyncio.get_running_loop()
        self._silence.start()
        self._started = loop.time()
        child = self._supervisor.start(self._command, self._ended)
        if self._silence.patience and child.returncode is None:
            self._timer = loop.call_later(self._silence.interval, self._look, child, self._started)

    def close(self) -> None:
        """Start it no more. A running worker is the supervisor's to stop."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, child: Child, looked: float) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if child.returncode is not None:
            return
        if self._silence.look(now - looked):
            self._frozen = child
            child.signal(signal.SIGABRT)
            self._timer = loop.call_later(_LAST_WORDS, child.signal, signal.SIGKILL)
        else:
            self._timer = loop.call_later(self._silence.interval, self._look, child, now)

    def _ended(self, child: Child) -> None:
        if self._timer is not None:
            self._timer.cancel()
        code = child.returncode
        is_frozen = child is self._frozen
        reason = (
            f"{child} was frozen for {self._silence.patience:g} s and was killed"
            if is_frozen
            else child.obituary()
        )
        failed = is_frozen or (code is not None and (code > 0 or -code in _CRASHES))
        if failed and not self._is_closed:
            self._start_later(reason)
        else:
            self._on_death(WorkerDeath(reason, self._command.log, None))

    def _start_later(self, reason: str) -> None:
        loop = asyncio.get_running_loop()
        delay = self._backoff.after(loop.time() - self._started)
        self._timer = loop.call_later(delay, self._start_again)
        self._on_death(WorkerDeath(reason, self._command.log, delay))

    def _start_again(self) -> None:
        try:
            self.start()
        except LocalError as error:  # no memory or no process to spare now
            self._start_later(str(error))
