"""The pulse of a worker: a file that is touched once a second while the worker can work."""

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from celery import Celery, bootsteps, signals

from homeloop import Affinity, default_runtime

_INTERVAL = 1.0  # seconds


def show_pulse(app: Celery, file: Path) -> None:
    """Have the app's workers touch a file once a second, from their start, and not while they cannot work.

    They cannot while the process is stopped or something keeps the interpreter's lock, while the consumer's thread
    does nothing although it is connected to the broker, and while the event loop of the runs is blocked. A worker
    that waits for its broker, or for its runs before it ends, can.

    Args:
        app: The worker's application; to be called once.
        file: Made if it is not there. One that cannot be written is not touched.
    """
    pulse = Pulse(file)

    class Consuming(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery ships no types
        """Lets the consumer's timer tell that its thread runs, as long as it is connected."""

        requires = ("celery.worker.consumer.tasks:Tasks",)
        _timer: Any = None  # Any: likewise

        def start(self, parent: Any) -> None:
            # For each connection anew: Celery clears the timer when one is lost.
            self._timer = parent.timer.call_repeatedly(_INTERVAL / 2, pulse.ticks.set)
            pulse.is_consuming = True

        def stop(self, parent: Any) -> None:
            pulse.is_consuming = False
            if self._timer is not None:  # else it ended before it was connected
                self._timer.cancel()

    app.steps["consumer"].add(Consuming)  # pyright: ignore[reportOptionalSubscript]

    def beat() -> None:
        while True:
            pulse.look()
            time.sleep(_INTERVAL)

    def begin(**_: Any) -> None:
        threading.Thread(target=beat, name="pulse", daemon=True).start()

    signals.worker_init.connect(begin, weak=False)


class Pulse:
    """What was asked of a worker's threads, and whether they have answered.

    Attributes:
        is_consuming: Whether the consumer is connected, and so is to tick.
        ticks: Set by it.

    Thread: `look` is for one; the rest is for those that answer.
    """

    def __init__(self, file: Path) -> None:
        self.is_consuming = False
        self.ticks = threading.Event()
        self._file = file
        self._asked: tuple[Affinity, threading.Event] | None = None  # which loop, and its answer

    def look(self) -> None:
        """Touch the file if all have answered since the last look, and ask them anew."""
        consumer, loop = self._has_ticked(), self._has_answered()
        if consumer and loop:
            with suppress(OSError):
                self._file.touch(mode=0o600)

    def _has_ticked(self) -> bool:
        ticked = self.ticks.is_set()
        self.ticks.clear()
        return ticked or not self.is_consuming

    def _has_answered(self) -> bool:
        """Tell whether the loop has answered, and ask anew if so; there may be none, or another one by now."""
        residence = default_runtime().residence()
        if residence is None:
            return True
        if self._asked is not None and self._asked[0] == residence.home and not self._asked[1].is_set():
            return False
        answer = threading.Event()
        self._asked = (residence.home, answer)
        with suppress(RuntimeError):  # closed just now
            residence.loop.call_soon_threadsafe(answer.set)
        return True
