"""What a forked child does with what it inherited."""

import gc
import os
import traceback
from collections.abc import Sequence
from typing import NoReturn

from acts import BOUND, Act, Ending, OnCancel, Thing
from model import CallModel, RuntimeModel, TalkModel
from watch import Journal
from ways import Answer, Way

from homeloop.errors import RuntimeDiedError


def end_with_verdict(
    journal: Journal,
    verdict: int,
    models: Sequence[RuntimeModel],
    calls: Sequence[CallModel],
    talks: Sequence[TalkModel],
) -> NoReturn:
    """Try everything; write what came of it, and end without a trace."""
    text = "nothing"
    try:
        journal.arm()
        _try_all(models, calls, talks)
        text = "fine"
    except BaseException:
        text = traceback.format_exc()
    finally:
        journal.disarm()
        os.write(verdict, text.encode()[:60_000])
        os._exit(0)


def _try_all(models: Sequence[RuntimeModel], calls: Sequence[CallModel], talks: Sequence[TalkModel]) -> None:
    before = [(call.act.times_cancelled, call.act.how) for call in calls]
    for call in calls:
        if call.way is Way.SUBMIT and not call.answered:
            failed = call.answer.future.exception(0)
            assert isinstance(failed, RuntimeDiedError), f"{call!r} has {failed!r} in the child"
    for talk in talks[::2]:
        _try_talk(talk)
    for model in models:
        _try(model)
    for talk in talks[1::2]:
        _try_talk(talk)
    gc.collect()  # what the parent has in flight is kept, and does not clean up here
    assert [(call.act.times_cancelled, call.act.how) for call in calls] == before, (
        "the parent's calls were touched"
    )
    assert not any(talk.tale.ended.is_set() for talk in talks if not talk.lost), "the parent's talks were touched"


def _try(model: RuntimeModel) -> None:
    """Use and close a runtime that the parent goes on to use."""
    runtime, closed = model.runtime, model.closed
    stats = runtime.statistics()
    restarts = model.restarts + (model.alive or model.lost)
    assert (stats.home, stats.in_flight, stats.restarts) == (None, 0, restarts), f"{model!r} begins with {stats}"
    for _ in range(2):
        assert _label(model, Ending.VALUE) == ("closed" if closed else "value")
    assert _label(model, Ending.EXIT) == ("closed" if closed else "exit")
    in_time = {"timed out"} if model.options.long_grace else {"timed out", "abandoned"}
    assert _label(model, None, timeout=0.01) in ({"closed"} if closed else in_time)
    runtime.close(BOUND)
    assert not model.threads()
    assert _label(model, Ending.VALUE) == "closed"


def _label(model: RuntimeModel, ending: Ending | None, timeout: float | None = BOUND) -> str:
    act, gift = Act(model.loops, OnCancel.OBEY, ending), Thing()
    answer = Answer(gift)
    answer.take(lambda: model.runtime.run(act.perform, gift, timeout=timeout))
    return answer.label(gift)


def _try_talk(talk: TalkModel) -> None:
    """A conversation belongs to the parent's loop, here it is over."""
    answer = Answer(talk.gift)
    answer.take(talk.subject.__next__ if talk.iterates else lambda: talk.subject.__exit__(None, None, None))
    label = answer.label(talk.gift)
    assert label == ("closed" if talk.model.runtime.is_closed else "died"), f"{talk!r} in the child: {label!r}"
