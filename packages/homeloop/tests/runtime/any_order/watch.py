"""What nobody may leave behind: threads, descriptors, objects, noise."""

import faulthandler
import gc
import logging
import os
import sys
import threading
import traceback
import weakref
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, TextIO

from acts import BOUND, Thing
from model import RuntimeModel

import homeloop
from homeloop.runtime._waiting import _waiters

_DESCRIPTORS = Path("/proc/self/fd")


_OF_LOST_TASKS = ("Task was destroyed but it is pending", "coroutine 'Call.drive' was never awaited")


class Noise(logging.Handler):
    """Whatever is logged or raised where nobody hears it, and the events of runtimes."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []
        self.events: Counter[tuple[str, str]] = Counter()
        logging.getLogger().addHandler(self)
        sys.unraisablehook = lambda noise: self.heard.append(
            f"unraisable {type(noise.exc_value).__name__}: {noise.exc_value} in {noise.object!r}"
        )
        threading.excepthook = lambda noise: self.heard.append(f"in {noise.thread}: {noise.exc_value!r}")
        homeloop.add_instrument(self)

    def forget(self) -> None:
        """Forget what was heard before."""
        self.heard.clear()
        self.events.clear()

    def check(self, model: RuntimeModel) -> None:
        """Hold a runtime's events against the model."""
        for event in ("RuntimeStarted", "RuntimeStopped", "RuntimeDied", "CallAbandoned", "CleanUpFailed"):
            found, least = self.events[event, model.name], model.events[event]
            most = least + model.slack[event]
            assert least <= found <= most, f"{model!r}: {found} {event} instead of {least} to {most}"

    def check_silence(self, tasks_were_lost: bool) -> None:
        """Fail if anything was heard, but for what asyncio says of tasks that went down with their loop."""
        excused = _OF_LOST_TASKS if tasks_were_lost else ()
        noise = [each for each in self.heard if not any(words in each for words in excused)]
        assert not noise, "\n".join(noise)

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of a record, unless it tells of an event."""
        if not (record.args and isinstance(record.args, tuple) and isinstance(record.args[0], homeloop.Event)):
            self.heard.append(self.format(record))

    def notify(self, event: homeloop.Event) -> None:
        """Count an event."""
        self.events[type(event).__name__, getattr(event, "runtime", "")] += 1


class Owner(Protocol):
    """Somebody who gives things away."""

    things: Iterable[weakref.ref[Thing]]


class Leaks:
    """A comparison of the process before and after."""

    def __init__(self) -> None:
        gc.collect()
        self._threads = set(threading.enumerate())
        self._descriptors = self._open()
        self._owners: dict[weakref.ref[Thing], str] = {}
        self._lost: set[weakref.ref[Thing]] = set()

    def watch(self, *owners: Owner) -> None:
        """Have the end of somebody's things looked for."""
        for owner in owners:
            self._owners.update((thing, repr(owner)) for thing in owner.things)

    def excuse(self, *owners: Owner) -> None:
        """Note that somebody's loop went down with it: its things are left to the garbage collector."""
        for owner in owners:
            self._lost.update(owner.things)

    @property
    def is_anything_lost(self) -> bool:
        """Whether anything went down with a loop."""
        return bool(self._lost)

    def check(self) -> None:
        """Fail if anything is left."""
        for thread in set(threading.enumerate()) - self._threads:
            thread.join(BOUND)
            assert not thread.is_alive(), f"{thread.name} was left behind"
        left = self._open()
        assert left == self._descriptors, f"{left} descriptors instead of {self._descriptors}"
        self._check_freed(self._owners.keys() - self._lost)
        gc.collect()
        self._check_freed(self._owners.keys())
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        raise AssertionError("a child process was left behind")

    def _check_freed(self, things: Iterable[weakref.ref[Thing]]) -> None:
        held = [f"that of {self._owners[thing]} by {_holders(thing())}" for thing in things if thing() is not None]
        assert not held, "things that are not freed:\n" + "\n".join(held)

    def _open(self) -> int:
        kept = len(_waiters.idle)  # threads that waited left them to the next ones
        return len(list(_DESCRIPTORS.iterdir())) - kept if _DESCRIPTORS.exists() else 0


def _holders(thing: object, depth: int = 3, ours: tuple[object, ...] = ()) -> str:
    """Tell who refers to a thing, and who refers to them, but for our own lists and frames."""
    if depth == 0:
        return "..."
    told, holders = [], gc.get_referrers(thing)
    for each in holders:
        if not any(each is mine for mine in ours) and getattr(each, "f_code", None) is not _holders.__code__:
            told.append(f"{each!r:.150} < {_holders(each, depth - 1, (*ours, holders, told))}")
    return "; ".join(told)


class Journal:
    """
    The steps of the present example, in a file; and a bound on each of them.

    A step that hangs ends the process: all stacks go to stderr, and the file tells how it came to that.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.steps = 0

    def begin(self) -> None:
        """Forget the example before."""
        self._file.seek(0)
        self._file.truncate()

    def step(self, text: str) -> None:
        """Note a step that begins now."""
        self.steps += 1
        self.note(text)
        self.arm()

    def note(self, text: str) -> None:
        """Note something about the step."""
        print(text, file=self._file, flush=True)

    def tell(self, error: BaseException | None) -> None:
        """Print the steps that led to an error, and the error, which may not come again when it is tried again."""
        self._file.seek(0)
        sys.stderr.write(self._file.read())
        traceback.print_exception(error)
        sys.stderr.flush()

    def arm(self) -> None:
        """Begin to count the time of a step."""
        faulthandler.dump_traceback_later(2 * BOUND, exit=True)

    def disarm(self) -> None:
        """Stop counting: until `arm` nothing is bounded, and the process may fork."""
        faulthandler.cancel_dump_traceback_later()
