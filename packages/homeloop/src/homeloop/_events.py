"""What happened: records, and the protocol of those who want to hear of it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from homeloop._affinity import Affinity

logger = logging.getLogger("homeloop")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. ``level`` is the logging level it is reported at."""

    level: ClassVar[int] = logging.DEBUG


@dataclass(frozen=True, slots=True)
class RuntimeStarted(Event):
    """A runtime opened a loop on a thread; ``restarts`` counts the loops it lost before."""

    runtime: str
    home: Affinity
    restarts: int


@dataclass(frozen=True, slots=True)
class RuntimeStopped(Event):
    """A runtime's loop is closed, its tasks and resources with it."""

    runtime: str
    home: Affinity


@dataclass(frozen=True, slots=True)
class RuntimeDied(Event):
    """A runtime's loop ended without having been told to."""

    level: ClassVar[int] = logging.ERROR
    runtime: str
    home: Affinity
    reason: str


@dataclass(frozen=True, slots=True)
class RuntimeStuck(Event):
    """A runtime's loop did not end in time; its thread was left alone."""

    level: ClassVar[int] = logging.WARNING
    runtime: str
    home: Affinity
    blocked_at: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CallAbandoned(Event):
    """A call ignored its cancellation past the grace, or its loop was blocked: nobody waits for it any more."""

    level: ClassVar[int] = logging.WARNING
    runtime: str
    what: str
    waiting_at: tuple[str, ...]
    blocked_at: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CleanUpFailed(Event):
    """A cancelled call raised while it cleaned up, and nobody waits for it who could be told."""

    level: ClassVar[int] = logging.WARNING
    runtime: str
    what: str
    error: str


@dataclass(frozen=True, slots=True)
class TaskLeft(Event):
    """A task was still there when its loop was closed, though it had been cancelled."""

    level: ClassVar[int] = logging.WARNING
    runtime: str
    what: str
    waiting_at: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ResourceOpened(Event):
    """A loop-bound resource was opened on its loop."""

    what: str
    home: Affinity


@dataclass(frozen=True, slots=True)
class ResourceClosed(Event):
    """A loop-bound resource was closed on its loop."""

    what: str
    home: Affinity


@dataclass(frozen=True, slots=True)
class ResourceCloseFailed(Event):
    """Closing a loop-bound resource raised or took too long; it was let go."""

    level: ClassVar[int] = logging.WARNING
    what: str
    home: Affinity
    error: str


@dataclass(frozen=True, slots=True)
class ResourceDropped(Event):
    """A loop was closed without its generators being shut down, so its resource could not be closed."""

    level: ClassVar[int] = logging.WARNING
    what: str
    home: Affinity


@dataclass(frozen=True, slots=True)
class CallbackFailed(Event):
    """A bound callback raised, or its loop was gone."""

    level: ClassVar[int] = logging.ERROR
    what: str
    home: Affinity
    error: str


class Instrument(Protocol):
    """Hears of every event, on the thread where it happened. Must return fast and must not call back."""

    def notify(self, event: Event) -> None:
        """Take note of the event."""
        ...


_instruments: tuple[Instrument, ...] = ()


def add_instrument(instrument: Instrument) -> Callable[[], None]:
    """
    Let an instrument hear of every event in this process.

    Returns:
        A function that takes it off again; calling it twice is harmless.

    Thread: any.
    """
    global _instruments
    _instruments = (*_instruments, instrument)

    def remove() -> None:
        global _instruments
        _instruments = tuple(each for each in _instruments if each is not instrument)

    return remove


def emit(event: Event) -> None:
    """Log the event at its level and tell the instruments; an instrument's own error is logged, not raised."""
    logger.log(event.level, "%s", event)
    for instrument in _instruments:
        try:
            instrument.notify(event)
        except Exception:
            logger.exception("instrument %r failed on %s", instrument, event)
