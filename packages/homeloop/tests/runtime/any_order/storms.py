"""What befalls those who wait: interrupts, blocked loops, circles, items that do not come."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from acts import BOUND, STUBBORN, Act, Ending, OnCancel, Tale
from calls import Calls
from hypothesis import strategies as st
from hypothesis.stateful import rule
from lives import Lives
from model import CallModel, Cause, RuntimeModel, TalkModel
from talks import Talks
from ways import Answer, InterruptError, Way
from world import SLOT


class Storms(Calls, Lives, Talks):
    """Steps that strike who waits."""

    @rule(slot=SLOT, on_cancel=st.sampled_from(OnCancel), moment=st.sampled_from(("waiting", "any", "starting")))
    def interrupt(self, slot: int, on_cancel: OnCancel, moment: Literal["waiting", "any", "starting"]) -> None:
        """A signal handler raises in the thread that waits for a call."""
        model = self.models[slot]
        if model.closed or model.places <= 0:
            return
        if on_cancel in STUBBORN and model.options.long_grace:
            on_cancel = OnCancel.CLEAN_UP
        act = Act(model.loops, on_cancel, Ending.VALUE if moment == "any" else None)
        call = CallModel(self.name("c"), model, Way.MAIN, act, None)
        call.causes.add(Cause.INTERRUPT)
        self.step(f"interrupt {call!r} {moment}")
        with _interrupts() as strike:
            if moment == "starting" and not model.alive:
                self._interrupt_start(model, strike)
            else:
                act.on_begin = strike
                self.start(call, model)
                act.on_begin = None
        if moment == "any":
            self._see_perhaps_interrupted(call)
        elif act.begun.is_set():
            self._see_interrupted(call)

    def _interrupt_start(self, model: RuntimeModel, strike: Callable[[], None]) -> None:
        """The thread that was started is not left alone with its loop."""
        model.loops.strike = strike
        try:
            model.runtime.start()
        except InterruptError:
            pass
        else:
            raise AssertionError("the interrupt got lost")
        for thread in model.threads():
            thread.join(BOUND)
        assert not model.threads(), f"{model!r} has a thread that nobody started"
        model.events.update(RuntimeStarted=1, RuntimeStopped=1)
        if model.lost:
            model.lost = False
            model.restarts += 1
        model.loops.forget(model.loops.loop)

    def _see_interrupted(self, call: CallModel) -> None:
        model, act = call.model, call.act
        model.begin(call)
        if act.ends_when_cancelled:
            if not model.options.long_grace:
                model.slack["CallAbandoned"] += 1
            model.finish(call)
        else:
            call.give_up()
            call.conclude()
            self.calls.append(call)

    def _see_perhaps_interrupted(self, call: CallModel) -> None:
        """The interrupt may have come when the outcome was there already, or too late to be seen."""
        assert call.act.ended.wait(BOUND)
        call.model.finished += 1
        call.model.slack["CallAbandoned"] += 1
        call.answered, call.gift = True, None
        call.answer.forget()
        self.leaks.excuse(call)  # the handler may have raised where references were just being dropped

    @rule(slot=SLOT, count=st.integers(1, 3))
    def block(self, slot: int, count: int) -> None:
        """A loop that is blocked is told of in the time-out's error; what was to run on it never begins."""
        model = self.models[slot]
        if model.closed or model.places <= count or model.options.long_grace:
            return
        self.step(f"block {model!r}")
        model.wake()
        entered, gate = threading.Event(), threading.Event()

        async def block() -> None:
            entered.set()
            assert gate.wait(BOUND)

        blocking = model.runtime.submit(block)
        assert entered.wait(BOUND)
        try:
            for _ in range(count):
                act = Act(model.loops, OnCancel.OBEY, Ending.VALUE)
                call = CallModel(self.name("c"), model, Way.RUN, act, 0.01)
                call.refused, call.may_begin = {"timed out"}, False
                self.start(call, model)
                call.conclude()
                assert call.answer.blocked, f"{call!r} does not know that the loop is blocked"
        finally:
            gate.set()
        blocking.result(BOUND)
        model.settle()
        assert not act.begun.is_set(), f"{call!r} began after its time"
        model.finished += 1

    @rule(slot=SLOT, fails=st.booleans(), then=st.sampled_from(("go on", "interrupt", "close", "kill")))
    def hang(self, slot: int, fails: bool, then: Literal["go on", "interrupt", "close", "kill"]) -> None:
        """A caller waits for an item that does not come, until something else does."""
        model = self.models[slot]
        mortal = model.options.kind == "asyncio"
        if model.closed or model.places <= 0 or (then == "kill" and not mortal):
            return
        talk = TalkModel(self.name("t"), model, Tale(model.loops, fails, hangs=True), iterates=True)
        self.leaks.watch(talk)
        self.step(f"hang {talk!r}, then {then}")
        model.wake()
        assert self.hear(talk, talk.subject.__next__, elsewhere=False) == "value"
        talk.left -= 1
        model.talks += 1
        model.finished += 1
        self.talks.append(talk)
        answer, tale = Answer(talk.gift), talk.tale
        if then == "interrupt":
            with _interrupts() as tale.on_hang:
                answer.take(talk.subject.__next__)
            tale.on_hang = None
        else:
            self.clients.do(lambda: answer.take(talk.subject.__next__))
            assert tale.hung.wait(BOUND), f"{talk!r} does not begin with its second item"
        match then:
            case "go on":
                assert model.loops.loop is not None
                tale.go_on(model.loops.loop)
                self._see_second_item(talk, answer)
                return
            case "interrupt":
                assert tale.ended.wait(BOUND), f"{talk!r} does not end"
                model.finished += 1
                model.slack.update(CallAbandoned=1, CleanUpFailed=1)
                talk.end()
                model.settle()
                waited = model.runtime.statistics().finished - model.finished
                assert waited in (0, 1), f"{waited} steps were made to leave {talk!r}"
                model.finished += waited
            case "close":
                self.close_now(model, hasty=False, by="main")
                model.events["CleanUpFailed"] += fails
                assert tale.ended.is_set(), f"{talk!r} was not awaited"
            case "kill":
                self.kill_now(model)
        label, wanted = answer.label(talk.gift), "interrupted" if then == "interrupt" else "died"
        answer.forget()
        assert label == wanted, f"{talk!r} got {label!r}, not {wanted!r}"
        assert tale.times_cancelled == (then != "kill"), f"{talk!r} was cancelled {tale.times_cancelled} times"
        assert self.hear(talk, talk.subject.__next__, elsewhere=False) == "over", f"{talk!r} goes on after its end"
        self.talks.remove(talk)

    def _see_second_item(self, talk: TalkModel, answer: Answer) -> None:
        label = answer.label(talk.gift)
        assert label == "value", f"{talk!r} got {label!r}"
        answer.forget()
        talk.left -= 1
        talk.model.finished += 1

    @rule(slot=SLOT)
    def circle(self, slot: int) -> None:
        """Loops that would wait for each other are told so."""
        mine, other = self.models[slot], self.models[slot - 1]
        if any(model.closed or model.places <= 0 for model in (mine, other)):
            return
        self.step(f"circle {mine!r} {other!r}")
        mine.wake()
        other.wake()
        act = Act(mine.loops, OnCancel.OBEY, Ending.VALUE)
        call = CallModel(self.name("c"), mine, Way.RUN, act, None)
        call.refused, call.may_begin = {"deadlock"}, False
        answer, gift = call.answer, call.gift
        assert gift is not None

        async def back() -> None:
            answer.take(lambda: mine.runtime.run(act.perform, gift))

        async def there() -> None:
            other.runtime.run(back)

        self.clients.do(lambda: mine.runtime.run(there)).result(BOUND)
        call.conclude()
        mine.finished += 1
        other.finished += 1


@contextmanager
def _interrupts() -> Iterator[Callable[[], None]]:
    """Give a function that has a signal handler raise in the main thread; see that it has when this is over."""
    sent, handled = [], threading.Event()

    def handle(*_: object) -> None:
        handled.set()
        raise InterruptError

    def strike() -> None:
        sent.append(True)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        try:
            yield strike
            while sent and not handled.wait(BOUND):
                raise AssertionError("the signal was not handled")
        except InterruptError:
            pass
    finally:
        signal.signal(signal.SIGUSR1, before)
