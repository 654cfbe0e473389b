"""Single calls: made in any way, ordered to end, cancelled."""

import asyncio
from collections.abc import Awaitable

from acts import BOUND, Act, Ending, OnCancel, Thing
from hypothesis import strategies as st
from hypothesis.stateful import rule
from model import CallModel, Cause, RuntimeModel
from ways import Way
from world import PICK, SLOT, World

TIMEOUTS = st.sampled_from((None, None, None, 1e-6, 0.01, 100.0))
MOST_CALLS = 8


class Calls(World):
    """Steps that concern one call."""

    @rule(
        slot=SLOT,
        host=SLOT,
        way=st.sampled_from(Way),
        on_cancel=st.sampled_from(OnCancel),
        ending=st.none() | st.sampled_from(Ending),
        timeout=TIMEOUTS,
        hops=st.integers(0, 2),
    )
    def call(
        self,
        slot: int,
        host: int,
        way: Way,
        on_cancel: OnCancel,
        ending: Ending | None,
        timeout: float | None,
        hops: int,
    ) -> None:
        """Call a function that ends by itself, or that waits for its order."""
        if ending is None and len(self.calls) >= MOST_CALLS:
            ending = Ending.VALUE
        self._make(slot, host, way, Act(self.models[slot].loops, on_cancel, ending, hops), timeout)

    @rule(slot=SLOT, way=st.sampled_from((Way.RUN, Way.ARUN, Way.SUBMIT)), on_cancel=st.sampled_from(OnCancel))
    def park(self, slot: int, way: Way, on_cancel: OnCancel) -> None:
        """Call a function that waits for its order."""
        if len(self.calls) < MOST_CALLS:
            self._make(slot, slot, way, Act(self.models[slot].loops, on_cancel), None)

    def _make(self, slot: int, host: int, way: Way, act: Act, timeout: float | None) -> None:
        call = CallModel(self.name("c"), self.models[slot], way, act, timeout)
        call.way = self._possible_way(call, self.models[host])
        self.step(f"call {call!r}")
        self.start(call, self.models[host])
        self._follow(call)

    @rule(number=PICK, ending=st.sampled_from(Ending))
    def order(self, number: int, ending: Ending) -> None:
        """Have a call end. One that waits for its turn will end as soon as it has begun."""
        call = self.pick(self.calls, number)
        if call is None:
            self.park(number % len(self.models), Way.RUN, OnCancel.OBEY)
        else:
            self.step(f"order {call!r} {ending.name}")
            call.act.order(ending)
            if call in call.model.running:
                call.model.finish(call)

    @rule(number=PICK)
    def cancel(self, number: int) -> None:
        """Cancel a submitted future or the task that awaits arun(), also twice."""
        call = self.pick([each for each in self.calls if each.may_be_cancelled], number)
        if call is None:
            self.park(number % len(self.models), (Way.ARUN, Way.SUBMIT)[number % 2], OnCancel.LINGER)
        else:
            self.step(f"cancel {call!r}")
            call.causes.add(Cause.CANCEL)
            assert call.answer.cancel(), f"{call!r} could not be cancelled"
            if call.way is Way.SUBMIT:
                assert call.answer.future.done(), f"{call!r} is not cancelled at once"
            self._see_cancelled(call)

    def _see_cancelled(self, call: CallModel) -> None:
        model, act = call.model, call.act
        if call in model.waiting:
            model.waiting.remove(call)
            call.conclude()
            model.settle()
            assert not act.begun.is_set(), f"{call!r} began after it was cancelled"
            return
        assert act.cancelled.wait(BOUND), f"{call!r} does not hear of its cancellation"
        if not act.ends_when_cancelled:
            if not model.options.long_grace and not call.given_up:
                if call.way is Way.SUBMIT:
                    model.await_abandoned()
                call.give_up()
            if not call.answered and (call.way is Way.SUBMIT or call.given_up):
                call.conclude()
            return
        if not model.options.long_grace:
            model.slack["CallAbandoned"] += 1  # the grace may pass in the clean-up
        model.finish(call)

    # -- how a call is made ---------------------------------------------------------------------------

    def _possible_way(self, call: CallModel, host: RuntimeModel) -> Way:
        """Return the way that was drawn, or another one where that would block what must go on."""
        model, act, way = call.model, call.act, call.way
        queues = not model.closed and model.places <= 0 and model.options.when_full == "wait" and not call.is_short
        if queues and way is not Way.SUBMIT:
            return Way.ARUN  # so that it is known to be in the queue when the step is over
        stays = not model.closed and not act.ends_itself and (not call.is_short or not act.ends_when_cancelled)
        inside = way in (Way.NESTED, Way.SANDWICH)
        if inside and (stays or model.closed or not host.alive or host.places <= 0):
            return Way.RUN
        return Way.RUN if stays and way is Way.MAIN else way

    def start(self, call: CallModel, host: RuntimeModel) -> None:
        """Make a call. Those that are made on the main thread or on another runtime are over then."""
        assert call.gift is not None
        self.leaks.watch(call)
        call.model.wake()
        if call.is_short and not call.model.closed:
            call.model.runtime.start()  # else its time would be over while the loop is started
        runtime, answer = call.model.runtime, call.answer
        perform, gift, timeout = call.act.perform, call.gift, call.timeout

        def run() -> None:
            answer.take(lambda: runtime.run(perform, gift, timeout=timeout))

        def arun() -> Awaitable[Thing]:
            return runtime.arun(perform, gift, timeout=timeout)

        match call.way:
            case Way.MAIN:
                run()
            case Way.RUN:
                self.clients.do(run)
            case Way.ARUN:
                self.foreign[len(self.calls) % len(self.foreign)].arun(answer, arun)
            case Way.SUBMIT:
                answer.submit(lambda: runtime.submit(perform, gift))
            case Way.NESTED:
                self.clients.do(lambda: host.runtime.run(answer.take_here, arun)).result(BOUND)
                host.finished += 1
            case Way.SANDWICH:
                self.clients.do(lambda: host.runtime.run(asyncio.to_thread, run)).result(BOUND)
                host.finished += 1
        news = call.act.news
        call.answer.future.add_done_callback(lambda _: news.set())

    # -- what becomes of it ---------------------------------------------------------------------------

    def _follow(self, call: CallModel) -> None:
        """See how a call fares that was just made: it is turned away, waits, stays, or ends."""
        model, act = call.model, call.act
        if model.closed:
            call.refused, call.may_begin = {"closed"}, False
        elif model.places <= 0 and model.options.when_full == "refuse":
            call.refused = {"overloaded", "timed out"} if call.is_short else {"overloaded"}
            call.may_begin = False
        elif model.places <= 0 and call.is_short:
            call.refused, call.may_begin = {"timed out"}, False
        elif model.places <= 0:
            model.waiting.append(call)
            self.calls.append(call)
            return
        elif not act.ends_itself and not call.is_short:
            model.begin(call)
            self.calls.append(call)
            return
        elif call.is_short:
            call.causes.add(Cause.TIMEOUT)
            if self._outlives_its_time(call):
                model.begin(call)
                self.calls.append(call)
                return
        self._see_answered(call)

    def _outlives_its_time(self, call: CallModel) -> bool:
        """Wait until a short call is answered, or stays in its clean-up; tell which."""
        act = call.act
        while not call.answer.future.done():
            assert act.news.wait(BOUND), f"the time of {call!r} is never over"
            act.news.clear()
            if act.cancelled.is_set() and not act.ends_when_cancelled and call.model.options.long_grace:
                return not call.answer.future.done()
        return False

    def _see_answered(self, call: CallModel) -> None:
        model, act = call.model, call.act
        call.answer.wait()
        if act.begun.is_set() and not call.act.ends_itself and not act.ends_when_cancelled:
            call.conclude()
            model.begin(call)
            self.calls.append(call)
        elif act.begun.is_set():
            model.begin(call)
            model.finish(call)
        else:
            call.conclude()
            model.settle()
            assert not act.begun.is_set(), f"{call!r} was turned away, and began"
