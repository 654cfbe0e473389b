"""Conversations: async generators iterated and context managers entered from sync code."""

import sys
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Literal

from acts import BOUND, BoomError, Tale, Thing
from hypothesis import strategies as st
from hypothesis.stateful import rule
from model import TalkModel
from ways import Answer
from world import PICK, SLOT, World

MOST_TALKS = 4


class Talks(World):
    """Steps that concern one conversation."""

    @rule(slot=SLOT, iterates=st.booleans(), fails=st.booleans(), elsewhere=st.booleans())
    def begin_talk(self, slot: int, iterates: bool, fails: bool, elsewhere: bool) -> None:
        """Take the first item of an async generator, or enter a context manager."""
        model = self.models[slot]
        would_wait = not model.closed and model.places <= 0 and model.options.when_full == "wait"
        if would_wait or len(self.talks) >= MOST_TALKS:
            return
        talk = TalkModel(self.name("t"), model, Tale(model.loops, fails), iterates)
        self.leaks.watch(talk)
        self.step(f"begin {talk!r}")
        model.wake()
        label = self.hear(talk, talk.subject.__next__ if iterates else talk.subject.__enter__, elsewhere)
        if model.closed:
            assert label == "closed"
            return
        model.finished += 1
        if model.places <= 0:
            assert label == "overloaded", f"{talk!r} got {label!r} on a full runtime"
            return
        assert label == "value"
        model.talks += 1
        talk.left -= 1
        self.talks.append(talk)

    @rule(number=PICK, elsewhere=st.booleans())
    def advance_talk(self, number: int, elsewhere: bool) -> None:
        """Take another item. After the last one the generator ends, or fails, and is exhausted."""
        talk = self.pick([each for each in self.talks if each.iterates], number)
        if talk is None:
            self.begin_talk(number % len(self.models), True, number % 2 == 0, elsewhere)
            return
        self.step(f"advance {talk!r}")
        label = self.hear(talk, talk.subject.__next__, elsewhere)
        if talk.lost:
            assert label == talk.refusal, f"{talk!r} got {label!r}, not {talk.refusal!r}"
        elif talk.left > 0:
            assert label == "value", f"{talk!r} got {label!r}"
            talk.left -= 1
            talk.model.finished += 1
            return
        else:
            assert label == ("boom" if talk.tale.fails else "over"), f"{talk!r} got {label!r}"
            talk.model.finished += 1
            talk.end()
        assert self.hear(talk, talk.subject.__next__, elsewhere) == "over", f"{talk!r} goes on after its end"
        self.talks.remove(talk)

    @rule(number=PICK, how=st.sampled_from(("close", "throw", "drop", "drop on loop")), elsewhere=st.booleans())
    def stop_iteration(
        self, number: int, how: Literal["close", "throw", "drop", "drop on loop"], elsewhere: bool
    ) -> None:
        """Leave an iteration early: it has cleaned up before its caller goes on."""
        talk = self.pick([each for each in self.talks if each.iterates], number)
        if talk is None:
            return
        self.step(f"{how} {talk!r}")
        self.talks.remove(talk)
        kept = [talk.subject]
        talk.subject = None

        def stop() -> Thing:
            match how:
                case "throw":
                    kept[0].throw(BoomError(talk.gift))
                case "close":
                    kept[0].close()
            kept.clear()
            return talk.gift

        if how == "drop on loop" and not talk.lost:
            assert talk.model.loops.loop is not None
            talk.model.loops.loop.call_soon_threadsafe(kept.clear)
            assert talk.tale.ended.wait(BOUND), f"{talk!r} does not end"
            talk.model.settle()
            label = "value"
        else:
            label = self.hear(talk, stop, elsewhere)
        assert label == ("boom" if how == "throw" else "value"), f"{talk!r} got {label!r}"
        if not talk.lost:
            talk.model.finished += 1
            talk.end()

    @rule(number=PICK, fails=st.booleans(), elsewhere=st.booleans())
    def leave_manager(self, number: int, fails: bool, elsewhere: bool) -> None:
        """Leave a context manager, with an exception or without. It may swallow the exception."""
        talk = self.pick([each for each in self.talks if not each.iterates], number)
        if talk is None:
            self.begin_talk(number % len(self.models), False, number % 2 == 0, elsewhere)
            return
        self.step(f"leave {talk!r} {'with an exception' if fails else ''}")
        self.talks.remove(talk)

        def leave() -> Thing:
            with _Left(talk.subject):
                if fails:
                    raise BoomError(talk.gift)
            return talk.gift

        if fails and sys.version_info >= (3, 12):
            self.leaks.excuse(talk)  # there contextlib's own frame keeps the exception, without homeloop too
        label = self.hear(talk, leave, elsewhere)
        if talk.lost:
            assert label == talk.refusal, f"{talk!r} got {label!r}, not {talk.refusal!r}"
            return
        assert label == ("boom" if fails and talk.tale.fails else "value"), f"{talk!r} got {label!r}"
        talk.model.finished += 1
        talk.end()

    def hear(self, talk: TalkModel, step: Callable[[], Thing], elsewhere: bool) -> str:
        """Do a step of a conversation, on this thread or another, and return its outcome."""
        answer = Answer(talk.gift)
        take = partial(copy_context().run, answer.take, step)  # the body's context, in which calls need no place
        if elsewhere:
            self.clients.do(take).result(BOUND)
        else:
            take()
        label = answer.label(talk.gift)
        assert not answer.changed(talk.tale.changed), f"{talk!r} changed its caller's context"
        answer.forget()
        return label


class _Left:
    """A context manager that was entered before."""

    def __init__(self, manager) -> None:  # type: ignore[no-untyped-def]
        self._manager = manager

    def __enter__(self) -> None:
        pass

    def __exit__(self, *raised: object) -> bool:
        return self._manager.__exit__(*raised)
