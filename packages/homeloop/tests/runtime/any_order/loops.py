"""The loops under test: of both kinds, with selectors that can fail, and with a count of what is on them."""

import asyncio
import selectors
import threading
from collections.abc import Callable
from importlib.util import find_spec

KINDS = ("asyncio", "uvloop") if find_spec("uvloop") else ("asyncio",)


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    """Make a loop of a kind."""
    if kind == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.SelectorEventLoop()


class Meter:
    """How many acts there are on one loop at the same time. Used on that loop's thread."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def enter(self) -> None:
        """Count one in."""
        self.now += 1
        self.most = max(self.most, self.now)

    def leave(self) -> None:
        """Count one out."""
        self.now -= 1


class _MortalSelector(selectors.DefaultSelector):
    doomed = False

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.doomed:
            raise OSError("the selector is gone")
        return super().select(timeout)


class LoopMaker:
    """
    A runtime's loop factory.

    Attributes:
        meter: What is on that loop.
        strike: Called while the next loop is made, once.
    """

    def __init__(self, kind: str, debug: bool) -> None:
        self.kind = kind
        self.debug = debug
        self.meter = Meter()
        self.strike: Callable[[], object] | None = None
        self._selector: _MortalSelector | None = None
        self._made: list[asyncio.AbstractEventLoop | None] = []

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop it made last; None once that was forgotten."""
        return self._made[-1] if self._made else None

    def forget(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Forget a loop that is over, while another one may just be made."""
        for number, each in enumerate(self._made):
            if each is loop:
                self._made[number] = None

    def __call__(self) -> asyncio.AbstractEventLoop:
        """Make a loop."""
        strike, self.strike = self.strike, None
        if strike is not None:
            strike()
        if self.kind == "asyncio":
            self._selector = _MortalSelector()
            loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop(self._selector)
        else:
            loop = new_loop(self.kind)
        loop.set_debug(self.debug)
        loop.slow_callback_duration = float("inf")  # it is about the machine
        self.meter = Meter()
        self._made.append(loop)
        return loop

    def kill(self) -> None:
        """Let the selector of the loop fail at once. Thread: any but the loop's."""
        assert self._selector is not None
        assert self.loop is not None
        self._selector.doomed = True
        self.loop.call_soon_threadsafe(int)  # it selects again

    def settle(self, bound: float) -> None:
        """
        Wait until the loop has done what was posted before.

        Three times around, as each may be queued behind a callback that was posted before: a call's first step,
        behind the wake-up that begins it, and what a step leaves to be done, behind that step.
        """
        loop = self.loop
        for _ in range(3 if loop is not None else 0):
            passed = threading.Event()
            loop.call_soon_threadsafe(passed.set)
            assert passed.wait(bound), "the loop does not turn"
