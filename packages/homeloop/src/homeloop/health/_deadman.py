"""The dead man's switch: has the interpreter's lock watched by a thread that does not need it."""

import faulthandler
import os
import re
import tempfile
from pathlib import PurePath
from typing import IO

from homeloop._events import logger
from homeloop.runtime import RLock

_THREAD = re.compile(r"(?:Current thread|Thread) 0x([0-9a-f]+)")
_FRAME = re.compile(r'  File "(.*)", line (\S+) in (.*)')


class _Timer:
    """
    The one such timer that a process has, and who holds it.

    Its lock is held across a fork, the timer disarmed: in a child that was forked while it was armed, arming and
    disarming it and the interpreter's end would wait for ever for its thread, which is not there.
    """

    def __init__(self) -> None:
        self.lock = RLock()  # a signal handler may fork
        self.holder: DeadMansSwitch | None = None
        self._outlasts_forks = not hasattr(os, "register_at_fork")  # Windows

    def hold(self, switch: "DeadMansSwitch") -> bool:
        """Take the timer, unless another one has it; tell whether it is taken. The lock is held."""
        if self.holder is None:
            self.holder = switch
            if not self._outlasts_forks:
                self._outlasts_forks = True
                os.register_at_fork(
                    before=self._before_fork, after_in_parent=self.lock.release, after_in_child=self._in_child
                )
        return self.holder is switch

    def _before_fork(self) -> None:
        self.lock.acquire()
        if self.holder is not None:
            faulthandler.cancel_dump_traceback_later()  # the parent arms it again soon

    def _in_child(self) -> None:
        holder, self.holder = self.holder, None
        if holder is not None:
            holder.close()
        self.lock.release()


_timer = _Timer()


class DeadMansSwitch:
    """
    Writes down what every thread is doing, unless it is armed anew in time.

    `faulthandler.dump_traceback_later` does it, of which a process has one: a program's own use of that is
    replaced, and of several switches only the first works until it is disarmed. Thread: any.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None  # not a pipe, which might be full and keep the timer's thread

    def arm(self, seconds: float) -> None:
        """Write it down in so many seconds, unless `arm` or `disarm` is called meanwhile."""
        with _timer.lock:
            if not _timer.hold(self):
                return
            try:
                if self._file is None:
                    self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - for as long as it is armed
                faulthandler.cancel_dump_traceback_later()  # it may be writing
                self._empty(self._file)
                faulthandler.dump_traceback_later(seconds, file=self._file)
            except (OSError, RuntimeError) as error:  # no room for the file, or none for the thread
                logger.warning("what holds the interpreter's lock is not recorded: %s", error)

    def disarm(self) -> None:
        """Write nothing any more."""
        with _timer.lock:
            if _timer.holder is self:
                faulthandler.cancel_dump_traceback_later()
                _timer.holder = None
            self.close()

    def take(self) -> dict[int, tuple[str, ...]]:
        """
        Disarm it, and return what it has written since it was armed.

        Returns:
            The frames of each thread, outermost first, by the thread's number.
        """
        with _timer.lock:
            if self._file is None:
                return {}
            faulthandler.cancel_dump_traceback_later()
            self._file.seek(0)
            written = self._file.read().decode(errors="replace")
            self._empty(self._file)
        return _stacks(written)

    @staticmethod
    def _empty(file: IO[bytes]) -> None:
        file.seek(0)
        file.truncate()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _stacks(written: str) -> dict[int, tuple[str, ...]]:
    stacks: dict[int, list[str]] = {}
    frames: list[str] = []
    for line in written.splitlines():
        if thread := _THREAD.match(line):
            frames = stacks[int(thread[1], 16)] = []
        elif frame := _FRAME.match(line):
            frames.append(f"{PurePath(frame[1]).name}:{frame[2]} in {frame[3]}")
    return {ident: tuple(reversed(frames)) for ident, frames in stacks.items()}
