"""What can go wrong while the service runs on one machine; each message says what, where and what to do."""

from pathlib import Path

from workflow_service.ports import ServiceError

_TAIL_BYTES = 16 * 1024  # enough for a traceback; reading more would not be shown


class LocalError(ServiceError):
    """Something on this machine kept the service from running. ``log`` is the file that tells more."""

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(message, log)
        self.message, self.log = message, log

    def __str__(self) -> str:
        return self.message


class HomeError(LocalError):
    """The home folder cannot be used."""


class HomeBusyError(HomeError):
    """Another supervisor works in the home."""


class DatabaseError(LocalError):
    """The embedded PostgreSQL cannot be prepared or started."""


class ChildDiedError(LocalError):
    """A process the service cannot do without ended by itself."""


class NotReadyError(LocalError):
    """The service did not become ready within its time."""


class StopRequestedError(LocalError):
    """A signal asked the supervisor to stop. ``signal_number`` is the first one that came."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by signal {signal_number}")
        self.args = (signal_number,)
        self.signal_number = signal_number


def log_tail(log: Path, lines: int = 20) -> str:
    """Return the last lines of a log; an empty string if there is none to read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
