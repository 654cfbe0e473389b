"""The rules: each reads one exception of a chain and concludes what loop fault it is, or nothing."""

from collections.abc import Callable

from homeloop.diagnosis._chain import Link
from homeloop.diagnosis._codes import Kind
from homeloop.diagnosis._judgement import Channel, Judgement
from homeloop.diagnosis._rules_ended import ended
from homeloop.diagnosis._rules_owners import attached, background, belongs_elsewhere, closed_loop, primitive, timer
from homeloop.diagnosis._rules_running import (
    cancel_scope,
    loop_methods,
    nested_run,
    no_loop,
    no_more_threads,
    own_errors,
    own_thread,
    poller,
)

Rule = Callable[[Link, list[Link], Channel], Judgement | None]

RULES: tuple[Rule, ...] = (
    own_errors,
    nested_run,
    no_loop,
    timer,
    loop_methods,
    poller,
    no_more_threads,
    primitive,
    closed_loop,
    attached,
    background,
    own_thread,
    cancel_scope,
    ended,
    belongs_elsewhere,
)
_PROBED = (Kind.NO_CURRENT_LOOP, Kind.NESTED_RUN, Kind.GREENLET_LOOP_COLLISION)
"""What programs find out by trying: an error that is raised while they deal with the answer is another matter."""
_SURE = {"high": 0, "medium": 1, "low": 2}


def judge(links: list[Link], channel: Channel) -> Judgement | None:
    """Return the surest conclusion; among equals that of the exception that came first."""
    best: Judgement | None = None
    for link in links:
        for rule in RULES:
            found = rule(link, links, channel)
            if found is not None and link.handled and found.kind in _PROBED:
                continue
            if found is not None and (best is None or _SURE[found.confidence] < _SURE[best.confidence]):
                best = found
    return best
