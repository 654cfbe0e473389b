"""Output: what a process writes to stderr while it starts: passed on, with the last lines kept for an error."""

import asyncio
import os
import sys
from contextlib import suppress

_STDERR = 2
_CHUNK = 1 << 16  # bytes
_KEPT = 4_000  # bytes, of the last ones
_LINES = 20  # of them


class StartOutput:
    """
    The reading end of a pipe that a starting process has for its stderr; what comes goes on to this process's own.

    It is read until nobody has the other end any more, for a program that was started meanwhile may have kept it.

    Thread: one loop's.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd, self.end = os.pipe()
        """The end for the other process. Close it with `give_away` when that has it."""
        self._kept = bytearray()
        os.set_blocking(self._fd, False)
        self._loop.add_reader(self._fd, self._read)

    def give_away(self) -> None:
        """Close this process's copy of the other end. Idempotent."""
        if self.end >= 0:
            os.close(self.end)
            self.end = -1

    def last_lines(self) -> str:
        """Return the last lines of what has been written so far."""
        while self._fd >= 0 and self._read():
            pass
        lines = self._kept.decode(errors="replace").splitlines()
        return "\n".join(lines[-_LINES:])

    def close(self) -> None:
        """Read no more. Idempotent."""
        self.give_away()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def drop(self) -> None:
        """Close the descriptors and leave the loop alone: it is gone, or the parent's of this forked child."""
        for fd in (self._fd, self.end):
            if fd >= 0:
                os.close(fd)
        self._fd = self.end = -1

    def _read(self) -> bool:
        """Take what is there; tell whether there was something."""
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self.close()
            return False
        self._kept += data
        del self._kept[:-_KEPT]
        with suppress(OSError):  # this process may have no stderr
            while data:
                data = data[os.write(_STDERR, data) :]
        return True


def own_stderr() -> int:
    """Return a descriptor of this process's stderr, for another one; of nothing, if it has none. Close it."""
    try:
        return os.dup(_STDERR)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


def divert_stderr(end: int) -> int:
    """Have this process write stderr to a descriptor, which is closed; return one of where it wrote before."""
    before = own_stderr()
    os.dup2(end, _STDERR)
    os.close(end)
    return before


def restore_stderr(before: int) -> None:
    """Have this process write stderr to where it did before `divert_stderr`."""
    if sys.stderr is not None:
        sys.stderr.flush()
    os.dup2(before, _STDERR)
    os.close(before)
