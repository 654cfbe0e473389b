"""The lives of runtimes: closed, dropped, killed, opened again, and left behind in a parent process."""

import asyncio
import gc
import os
import weakref
from typing import Literal

import forked
from acts import BOUND
from hypothesis import strategies as st
from hypothesis.stateful import rule
from model import CallModel, Cause, Options, RuntimeModel
from ways import Way
from world import OPTIONS, PICK, SLOT, World

HASTY = 0.02  # seconds that nobody can be sure to meet


class Lives(World):
    """Steps that concern one runtime, or all of them."""

    @rule(
        slot=SLOT,
        hasty=st.booleans(),
        by=st.sampled_from(("main", "client", "foreign")),
        then=st.none() | OPTIONS | OPTIONS,
    )
    def close(
        self, slot: int, hasty: bool, by: Literal["main", "client", "foreign"], then: Options | None
    ) -> None:
        """Close a runtime, also twice, and open another one in its place."""
        self.close_now(self.models[slot], hasty, by)
        self.everything_is_as_it_should_be()
        if then is not None:
            self.open(slot, then, start=False)

    def close_now(self, model: RuntimeModel, hasty: bool, by: Literal["main", "client", "foreign"]) -> None:
        """Close a runtime: callers are answered, and clean-ups have run, when close() returns."""
        self.step(f"close {model!r} {'hastily' if hasty else 'patiently'} by {by} with {model.running}")
        calls = [*model.running, *model.waiting]
        hasty = hasty and not model.talks
        self.strike(model, {Cause.CLOSE, Cause.HASTY_CLOSE} if hasty else {Cause.CLOSE})
        for call in calls:
            if not hasty:
                call.act.relent()

        def close() -> None:
            model.runtime.close(HASTY if hasty else BOUND)

        match by:
            case "main":
                close()
            case "client":
                self.clients.do(close).result(BOUND)
            case "foreign":
                self.foreign[0].do(close).result(BOUND)
        assert not model.threads(), f"{model!r} is closed, and its thread is there"
        for call in calls:
            assert hasty or call.act.ended.is_set() or not call.act.begun.is_set(), f"{call!r} was not awaited"
            assert call.way is not Way.SUBMIT or call.answer.future.done(), f"{call!r} was not answered"
        model.events["RuntimeStopped"] += model.alive
        model.closed, model.lost = True, False
        self.bury(model, calls, model.loops.loop)

    def strike(self, model: RuntimeModel, causes: set[Cause]) -> None:
        """Note that a runtime's loop is about to end, of one of these causes."""
        for call in (*model.running, *model.waiting):
            if Cause.CANCEL in call.causes and causes != {Cause.CLOSE}:
                model.slack["CleanUpFailed"] += 1  # the loop may end before the clean-up does
            call.causes |= causes

    def bury(self, model: RuntimeModel, calls: list[CallModel], loop: asyncio.AbstractEventLoop | None) -> None:
        """See the calls of a loop that has ended answered."""
        for call in calls:
            if not call.answered:
                call.conclude()
            call.act.check()
            if call.act.begun.is_set() and not call.act.ended.is_set():
                self.leaks.excuse(call)
        for talk in self.talks:
            if talk.model is model:
                talk.lost = True
                if not talk.tale.ended.is_set():
                    self.leaks.excuse(talk)
        model.end(loop)

    @rule(slot=SLOT, options=OPTIONS, start=st.booleans())
    def open(self, slot: int, options: Options, start: bool) -> None:
        """Open a new runtime where there is a closed one."""
        model = self.models[slot]
        if model.closed:
            self.former.append(model)
            self.models[slot] = model = RuntimeModel(self.name("r"), options)
            self.step(f"open {model!r}")
            if start:
                model.wake()
                model.runtime.start()

    @rule(slot=SLOT)
    def drop(self, slot: int) -> None:
        """Forget a runtime: its loop ends by itself, at once."""
        model = self.models[slot]
        calls = [*model.running, *model.waiting]
        kept = any(call.way is not Way.SUBMIT and not call.answered for call in calls)
        kept = kept or any(talk.model is model for talk in self.talks)  # they refer to it
        if model.closed or not model.alive or kept:
            return
        self.step(f"drop {model!r} with {calls}")
        self.strike(model, {Cause.CLOSE, Cause.HASTY_CLOSE})
        self.foreign[0].settle()
        self.foreign[-1].settle()
        runtime = weakref.ref(model.runtime)
        del model.runtime
        if self.leaks.is_anything_lost:
            gc.collect()  # a conversation that went down with its loop knew it,
            gc.collect()  # and what is collected may leave exceptions whose frames know us
        assert runtime() is None, f"{model!r} is held by {gc.get_referrers(runtime())}"
        for thread in model.threads():
            thread.join(BOUND)
        assert not model.threads(), f"{model!r} was dropped, and its thread is there"
        model.events["RuntimeStopped"] += 1
        self.bury(model, calls, model.loops.loop)
        self.former.append(model)
        self.models[slot] = RuntimeModel(self.name("r"), model.options)

    @rule(number=PICK)
    def kill(self, number: int) -> None:
        """Let a loop's selector fail: its callers hear of it, and the next call has a new loop."""
        mortal = [model for model in self.models if model.options.kind == "asyncio" and model.alive]
        model = self.pick(mortal, number)
        if model is not None:
            self.step(f"kill {model!r} with {model.running} {list(model.waiting)}")
            self.kill_now(model)
            assert not model.threads(), f"the loop of {model!r} died, and its thread is there"

    def kill_now(self, model: RuntimeModel) -> None:
        """Let a loop's selector fail, and wait for the end of its thread."""
        calls, threads, loop = [*model.running, *model.waiting], model.threads(), model.loops.loop
        self.strike(model, {Cause.DEATH})
        model.loops.kill()
        for thread in threads:
            thread.join(BOUND)
            assert not thread.is_alive(), f"the loop of {model!r} died, and its thread is there"
        model.events["RuntimeDied"] += 1
        model.slack["CleanUpFailed"] += model.talks  # without their loop, whenever they are collected
        model.lost = True
        self.bury(model, calls, loop)

    @rule(seldom=st.integers(0, 2))
    def fork(self, seldom: int) -> None:
        """A child can use and close what it inherited, and its parent does not notice."""
        if seldom == 0:
            self.step("fork")
            self.fork_now()

    def fork_now(self) -> None:
        """Fork, let the child try everything, and hear its verdict."""
        reading, writing = os.pipe()
        self.journal.disarm()  # a child cannot arm what it inherited armed
        child = os.fork()
        if child == 0:
            os.close(reading)
            forked.end_with_verdict(self.journal, writing, self.models, self.calls, self.talks)
        self.journal.arm()
        os.close(writing)
        with os.fdopen(reading) as verdict:
            text = verdict.read()
        _, status = os.waitpid(child, 0)
        assert (text, status) == ("fine", 0), f"the child: {text} (status {status})"
