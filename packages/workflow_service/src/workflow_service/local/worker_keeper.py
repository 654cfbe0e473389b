"""The worker of a service, started again after it ended with an error."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from workflow_service.local.children import Child, Command
from workflow_service.local.errors import LocalError
from workflow_service.local.supervisor import Supervisor

_FIRST_DELAY = 1.0  # seconds
_LONGEST_DELAY = 30.0  # seconds
_STEADY = 60.0  # seconds a worker must have lived for its end to be a new trouble, not the same one again


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


class WorkerKeeper:
    """Keeps a worker running through errors of its own, such as a broker that went away at a bad moment.

    Whoever ends a worker by a signal, or asks it to finish, meant it: then it stays away. Thread: the loop's.
    """

    def __init__(self, supervisor: Supervisor, command: Command, on_death: Callable[[WorkerDeath], None]) -> None:
        self._supervisor = supervisor
        self._command = command
        self._on_death = on_death
        self._backoff = Backoff()
        self._started = 0.0  # loop time
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def start(self) -> None:
        """Start the worker.

        Raises:
            LocalError: The system refused to start it.
        """
        self._started = asyncio.get_running_loop().time()
        self._supervisor.start(self._command, self._ended)

    def close(self) -> None:
        """Start it no more. A running worker is the supervisor's to stop."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _ended(self, child: Child) -> None:
        failed = child.returncode is not None and child.returncode > 0
        if failed and not self._is_closed:
            self._start_later(child.obituary())
        else:
            self._on_death(WorkerDeath(child.obituary(), self._command.log, None))

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
