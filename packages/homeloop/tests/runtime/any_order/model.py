"""What each runtime and each call should do: small enough to be believed."""

import asyncio
import threading
import time
import weakref
from collections import Counter, deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Literal

from acts import BOUND, Act, Tale, Thing
from loops import LoopMaker
from ways import Answer, Way

from homeloop import LoopRuntime


class Cause(Enum):
    """What struck a call."""

    TIMEOUT = auto()
    INTERRUPT = auto()
    PERHAPS_CANCEL = auto()  # it may have come too late
    CANCEL = auto()
    CLOSE = auto()
    HASTY_CLOSE = auto()  # with a budget that nobody can be sure to meet
    DEATH = auto()


_OWN = {"value": "value", "BoomError": "boom", "LateError": "late", "SystemExit": "exit"}


@dataclass(frozen=True)
class Options:
    """A runtime's options. A short grace is over at once, a long one never."""

    kind: str
    debug: bool
    long_grace: bool
    limit: int | None
    when_full: Literal["wait", "refuse"]
    propagate: bool


class CallModel:
    """
    A call that has been made.

    Attributes:
        causes: What struck it, besides its own ending.
        refused: The outcomes it may have when it does not begin.
        may_begin: Whether it may begin.
        answered: Whether its outcome was looked at, and found to be allowed.
        given_up: Whether its caller has left it behind.
        may_have_ended_in_time: Whether that was a close thing.
    """

    def __init__(self, name: str, model: "RuntimeModel", way: Way, act: Act, timeout: float | None) -> None:
        self.name, self.model, self.way, self.act = name, model, way, act
        self.timeout = None if way is Way.SUBMIT else timeout
        self.gift: Thing | None = Thing()
        self.things = (weakref.ref(self.gift), weakref.ref(act.changed))
        self.answer = Answer(self.gift)
        self.causes: set[Cause] = set()
        self.refused: set[str] = set()
        self.may_begin = True
        self.answered = False
        self.given_up = self.may_have_ended_in_time = False

    def __repr__(self) -> str:
        causes = "".join(f" {cause.name}" for cause in self.causes)
        return f"{self.name}@{self.model.name} {self.way.name} {self.act!r} timeout={self.timeout}{causes}"

    @property
    def is_short(self) -> bool:
        """Whether its time is over as soon as it is asked."""
        return self.timeout is not None and self.timeout < 1

    @property
    def may_be_cancelled(self) -> bool:
        """Whether its caller can cancel it now: a future always, a task as long as it waits."""
        return self.way is Way.SUBMIT or (self.way is Way.ARUN and not self.answered)

    def allowed(self) -> set[str]:
        """Return the outcomes that its caller may get, as far as things have gone."""
        act, causes = self.act, self.causes
        if not self.may_begin:
            return self.refused
        if Cause.CANCEL in causes:
            return {"cancelled"}
        if Cause.INTERRUPT in causes:
            return {"interrupted"}
        begun, own = act.begun.is_set(), _OWN.get(act.how or "", "cancelled")
        allowed = {own} if act.ended.is_set() else set()
        if not begun:
            allowed |= self.refused
        if Cause.PERHAPS_CANCEL in causes:
            allowed.add("cancelled")
        if own == "cancelled":
            by_itself = allowed if act.times_cancelled == 0 else set()
            if Cause.TIMEOUT in causes:
                allowed = by_itself | ({"timed out"} if act.ended.is_set() or not begun else set())
            elif Cause.CLOSE in causes and begun:
                allowed = by_itself | {"died"}
        if Cause.TIMEOUT in causes and begun and (self.answer.blocked or not self.model.options.long_grace):
            allowed.add("abandoned")
        if Cause.CLOSE in causes and not begun:
            allowed.add("closed")
        if Cause.DEATH in causes or Cause.HASTY_CLOSE in causes:
            allowed.add("died")
        return allowed

    def conclude(self) -> str:
        """Wait for the outcome, hold it against what is allowed, let go of it, and return it."""
        assert not self.answered
        assert self.gift is not None
        label = self.answer.label(self.gift)
        allowed = self.allowed()
        assert label in allowed, f"{self!r} has the outcome {label!r}, not one of {sorted(allowed)}"
        if not self.may_have_been_given_up(label):
            comes_back = self.way is not Way.SUBMIT and self.model.options.propagate and self.act.begun.is_set()
            changed = self.answer.changed(self.act.changed)
            assert changed == comes_back, f"{self!r}: its context was changed: {changed}, not {comes_back}"
        if label == "abandoned":
            self.give_up()
        self.answered = True
        self.gift = None
        if self.way is Way.SUBMIT and label == "cancelled":
            self.answer.forget_context()  # it may be cancelled again
        else:
            self.answer.forget()
        return label

    def may_have_been_given_up(self, label: str) -> bool:
        """Tell whether its caller may have left it behind, so that nothing came back from it."""
        struck = label in ("cancelled", "interrupted", "died") and not self.model.options.long_grace
        return self.given_up or label == "abandoned" or (struck and self.way is not Way.SUBMIT)

    def give_up(self) -> None:
        """Note that its caller has left it behind."""
        self.given_up = True
        self.may_have_ended_in_time = self.act.ended.is_set()
        self.model.events["CallAbandoned"] += 1


class TalkModel:
    """
    A conversation: an iteration, or a context manager that was entered.

    Attributes:
        subject: What is iterated, or entered.
        left: How many items are to come.
        lost: Whether its loop has ended.
    """

    def __init__(self, name: str, model: "RuntimeModel", tale: Tale, iterates: bool) -> None:
        self.name, self.model, self.tale, self.iterates = name, model, tale, iterates
        self.gift = Thing()
        self.things = (weakref.ref(self.gift), weakref.ref(tale.changed))
        make = model.runtime.iterate if iterates else model.runtime.enter
        self.subject: Any = make(tale.items, self.gift) if iterates else make(tale.manage(self.gift))
        self.left = tale.ITEMS
        self.lost = False

    def __repr__(self) -> str:
        kind = f"iteration with {self.left} to come" if self.iterates else "manager"
        return f"{self.name}@{self.model.name} {'lost ' * self.lost}{'failing ' * self.tale.fails}{kind}"

    @property
    def refusal(self) -> str:
        """What its caller is told when its loop has ended."""
        return "closed" if self.model.closed else "died"

    def end(self) -> None:
        """See the conversation end, and those begin who wait for its place."""
        assert self.tale.ended.is_set(), f"{self!r} did not clean up before its caller went on"
        assert self.tale.in_one_task, f"{self!r} was not all in one task and one context"
        self.model.talks -= 1
        self.model.finished += 1
        self.model.admit()


class RuntimeModel:
    """
    A runtime, and what is known of it.

    Attributes:
        alive: Whether it has a loop.
        lost: Whether it had one that ended by itself; the next call opens another one.
        running: Calls that have begun and not ended.
        waiting: Calls that wait for their turn, the next one first.
        talks: How many conversations there are on it.
        events: How many of each event it should have caused.
        slack: How many more it may have caused.
    """

    def __init__(self, name: str, options: Options) -> None:
        self.name, self.options = name, options
        self.loops = LoopMaker(options.kind, options.debug)
        self.runtime = LoopRuntime(
            name=name,
            loop_factory=self.loops,
            grace=BOUND if options.long_grace else 0.02,
            max_in_flight=options.limit,
            when_full=options.when_full,
            propagate_context=options.propagate,
        )
        self.alive = self.lost = self.closed = False
        self.running: list[CallModel] = []
        self.waiting: deque[CallModel] = deque()
        self.talks = 0
        self.finished = self.restarts = 0
        self.events: Counter[str] = Counter()
        self.slack: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"{self.name} {self.options}"

    @property
    def places(self) -> int:
        """How many more calls may begin now."""
        taken = len(self.running) + self.talks
        return 1000 if self.options.limit is None else self.options.limit - taken

    def wake(self) -> None:
        """Note that it is used: unless it is closed it has a loop now."""
        if self.alive or self.closed:
            return
        if self.lost:
            self.restarts += 1
            self.lost = False
        self.alive = True
        self.finished = 0
        self.events["RuntimeStarted"] += 1

    def begin(self, call: CallModel) -> None:
        """See a call begin."""
        assert call.act.begun.wait(BOUND), f"{call!r} did not begin"
        self.running.append(call)

    def finish(self, call: CallModel) -> None:
        """See a call end, its caller hear of it, and those that waited for its place begin."""
        assert call.act.ended.wait(BOUND), f"{call!r} did not end"
        if not call.answered:
            call.conclude()
        if call.act.how in ("BoomError", "LateError") and (call.given_up or Cause.CANCEL in call.causes):
            (self.slack if call.may_have_ended_in_time else self.events)["CleanUpFailed"] += 1
        self.running.remove(call)
        self.finished += 1
        self.admit()

    def admit(self) -> None:
        """See those begin for whom there are places now, in their order."""
        if self.waiting and self.places > 0:
            call = self.waiting.popleft()
            self.begin(call)
            self.loops.settle(BOUND)
            if call.act.ends_itself:
                self.finish(call)
            elif self.places <= 0:
                assert not any(each.act.begun.is_set() for each in self.waiting), "the turn was not kept"
            self.admit()

    def end(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Note that this loop of it is over."""
        self.alive = False
        self.loops.forget(loop)
        self.running.clear()
        self.waiting.clear()
        self.talks = 0

    def settle(self) -> None:
        """Wait until its loop has done what was posted before, if it has one."""
        if self.alive:
            self.loops.settle(BOUND)

    def await_abandoned(self) -> None:
        """Wait until one more call is abandoned than were left behind: its loop sees to it, as nobody waits."""
        before, deadline = sum(call.given_up for call in self.running), time.monotonic() + BOUND
        while self.runtime.statistics().abandoned == before:
            assert time.monotonic() < deadline, f"{self!r}: a cancelled call is not abandoned"
            self.settle()

    def check(self) -> None:
        """Hold the runtime against the model."""
        self.settle()
        for call in (*self.running, *self.waiting):
            call.act.check()
        stats = self.runtime.statistics()
        given_up = sum(call.given_up for call in self.running)
        in_flight, finished = len(self.running) + self.talks, self.finished if self.alive else 0
        should = (self.alive, in_flight, finished, given_up, self.restarts)
        found = (stats.home is not None, stats.in_flight, stats.finished, stats.abandoned, stats.restarts)
        assert found == should, f"{self!r}: (home, in_flight, finished, abandoned, restarts) {found} not {should}"
        assert self.runtime.is_closed == self.closed
        limit, most = self.options.limit, self.loops.meter.most
        assert limit is None or most <= limit, f"{self!r}: {most} calls at once"

    def threads(self) -> list[threading.Thread]:
        """Return the threads that bear its name."""
        return [each for each in threading.enumerate() if each.name.split("-executor")[0] == self.name]
