"""Many callers at once, and races between two."""

import threading
from typing import Literal

from acts import BOUND, Act, Ending, OnCancel
from calls import Calls
from hypothesis import strategies as st
from hypothesis.stateful import rule
from lives import Lives
from model import CallModel, Cause, RuntimeModel
from ways import Way
from world import PICK, SLOT

CROWD = st.lists(st.sampled_from((Way.RUN, Way.ARUN, Way.SUBMIT)), min_size=2, max_size=10)
Meanwhile = Literal["nothing", "cancel", "close", "kill", "fork"]


class Crowds(Calls, Lives):
    """Steps in which threads meet. What comes of them is known only as far as the promises go."""

    @rule(
        slot=SLOT,
        ways=CROWD,
        ending=st.sampled_from(Ending),
        hops=st.integers(0, 3),
        meanwhile=st.sampled_from(("nothing", "cancel", "cancel", "close", "kill", "fork")),
    )
    def crowd(self, slot: int, ways: list[Way], ending: Ending, hops: int, meanwhile: Meanwhile) -> None:
        """Many call at the same time, while something happens to them."""
        model = self.models[slot]
        if model.closed or (meanwhile == "kill" and model.options.kind != "asyncio"):
            return
        if model.places <= 0:
            meanwhile = "nothing"
        self.step(f"crowd of {len(ways)} on {model!r}, meanwhile {meanwhile}")
        self._probe(model)
        before, free = model.finished, model.places
        crowd = [self._joins(model, way, Act(model.loops, OnCancel.CLEAN_UP, ending, hops)) for way in ways]
        for call in crowd:
            self._set_off(call)
        match meanwhile:
            case "cancel":
                self._cancel_all(crowd)
            case "close":
                self._strike(crowd, Cause.CLOSE, {"closed"})
                self.close_now(model, hasty=False, by="main")
            case "kill":
                self._strike(crowd, Cause.DEATH, {"died"})
                self.kill_now(model)
            case "fork":
                self.fork_now()
        labels = [self._leaves(call) for call in crowd]
        refused = labels.count("overloaded")
        assert len(crowd) - refused >= min(len(crowd), free), (
            f"{refused} of {len(crowd)} refused, {free} were free"
        )
        if meanwhile != "close":
            if meanwhile == "kill":
                self._probe(model)  # if none of the crowd has opened another loop
                before = model.finished
            here = model.loops.loop
            model.finished = before + sum(call.act.loop is here for call in crowd)
        for call in crowd:
            call.act.loop = None

    def _joins(self, model: RuntimeModel, way: Way, act: Act) -> CallModel:
        full, waits = model.places <= 0, model.options.when_full == "wait"
        way = Way.RUN if full and waits and way is Way.SUBMIT else way
        call = CallModel(self.name("c"), model, way, act, 0.01 if full and waits else None)
        if full and waits:
            call.refused, call.may_begin = {"timed out"}, False
        elif not waits:
            call.refused = {"overloaded"}
        self.leaks.watch(call)
        return call

    def _set_off(self, call: CallModel) -> None:
        """Make a call on whatever thread comes first, and do not wait."""
        runtime, answer, perform, gift = call.model.runtime, call.answer, call.act.perform, call.gift
        timeout = call.timeout
        assert gift is not None
        match call.way:
            case Way.RUN:
                self.clients.do(lambda: answer.take(lambda: runtime.run(perform, gift, timeout=timeout)))
            case Way.ARUN:
                answer.take_on(self.foreign[-1].loop, lambda: runtime.arun(perform, gift, timeout=timeout))
            case Way.SUBMIT:
                answer.submit(lambda: runtime.submit(perform, gift))

    def _strike(self, crowd: list[CallModel], cause: Cause, refused: set[str]) -> None:
        for call in crowd:
            call.causes.add(cause)
            call.refused = call.refused | refused

    def _cancel_all(self, crowd: list[CallModel]) -> None:
        for call in crowd:
            if call.way is Way.SUBMIT:
                if call.answer.cancel():
                    call.causes.add(Cause.CANCEL)
            elif call.way is Way.ARUN:
                call.causes.add(Cause.PERHAPS_CANCEL)
                call.answer.cancel()
        call.model.slack.update(CleanUpFailed=len(crowd), CallAbandoned=len(crowd))

    def _leaves(self, call: CallModel) -> str:
        """See one of a crowd answered, and its function over."""
        call.answer.wait()
        lost = Cause.DEATH in call.causes
        if call.act.begun.is_set() and not lost:
            assert call.act.ended.wait(BOUND), f"{call!r} did not end"
        if lost:
            self.leaks.excuse(call)
        label = call.conclude()
        call.act.check()
        return label

    def _probe(self, model: RuntimeModel) -> None:
        """See that a runtime can be used, and has a loop then; a full one has one anyway."""
        if model.places > 0:
            model.wake()
            model.finished += 1
            call = CallModel(self.name("c"), model, Way.MAIN, Act(model.loops, OnCancel.OBEY, Ending.VALUE), None)
            self.start(call, model)
            assert call.conclude() == "value"

    @rule(number=PICK, ending=st.sampled_from(Ending))
    def race(self, number: int, ending: Ending) -> None:
        """A call is cancelled at the moment when it ends by itself."""
        racing = [each for each in self.calls if each.may_be_cancelled and not each.causes]
        call = self.pick([each for each in racing if each in each.model.running], number)
        if call is None:
            return
        self.step(f"race {call!r} {ending.name}")
        act, start = call.act, threading.Barrier(2)

        def order() -> None:
            start.wait(BOUND)
            act.order(ending)

        ordered = self.clients.do(order)
        start.wait(BOUND)
        in_time = call.answer.cancel()
        ordered.result(BOUND)
        if in_time:
            call.causes.add(Cause.CANCEL if call.way is Way.SUBMIT else Cause.PERHAPS_CANCEL)
        call.model.slack.update(CleanUpFailed=1, CallAbandoned=1)
        call.model.finish(call)
