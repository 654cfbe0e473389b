"""The choice of AUTO: which tier a kind of work has turned out to need."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

from homeloop._events import IsolationEscalated, emit
from homeloop.errors import AffinityError, NotTransferableError
from homeloop.isolation._tier import Isolation, Signs
from homeloop.runtime import allocate_lock, callable_name, forget_in_child

_ORDER = (Isolation.CONTEXT, Isolation.THREAD, Isolation.PROCESS)

# What asyncio, its loops and drivers say when an object is used away from its loop. Words alone prove nothing,
# but a misjudgement costs no more than a tier too many.
_AFFINITY = re.compile(
    r"attached to a different loop|bound to a different event loop|belongs to a different loop"
    r"|Event loop is closed|different event loop|loop argument must agree|Non-thread-safe operation"
)


@dataclass(frozen=True, slots=True)
class KindStatistics:
    """
    What is known of a kind of work.

    Attributes:
        tier: Where it runs next when it is left to `Isolation.AUTO`.
        pinned: Whether somebody said so with `IsolationExecutor.pin`, or the work cannot go further.
        reasons: Why it was moved, one for each time.
    """

    tier: Isolation
    pinned: bool
    reasons: tuple[str, ...]


def kind_of(fn: Callable[..., object]) -> str:
    """Name the kind of work that a function is: its name, unless the object whose method it is says otherwise."""
    while isinstance(fn, partial):
        fn = cast("Callable[..., object]", fn.func)
    own = getattr(getattr(fn, "__self__", None), "isolation_kind", None)
    return own if isinstance(own, str) else callable_name(fn)


class Choice:
    """What AUTO has learnt, by kind of work. Thread: any."""

    def __init__(self) -> None:
        self._kinds: dict[str, KindStatistics] = {}
        self._lock = allocate_lock()
        forget_in_child(self)

    def tier(self, kind: str) -> Isolation:
        """Return the tier for the next run of a kind."""
        known = self._kinds.get(kind)
        return Isolation.CONTEXT if known is None else known.tier

    def pin(self, kind: str, tier: Isolation | None) -> None:
        """Have a kind run in this tier whatever is seen; None to learn anew."""
        with self._lock:
            if tier is None:
                self._kinds.pop(kind, None)
            else:
                self._kinds[kind] = KindStatistics(tier, True, ())

    def learn(self, kind: str, ran_in: Isolation, signs: Signs, error: BaseException | None) -> None:
        """Draw the conclusion from a run, unless one that ran beside it has led to the same already."""
        stuck = isinstance(error, NotTransferableError) and ran_in is Isolation.PROCESS
        reason = str(error) if stuck else _reason(signs, error)
        if reason is None:
            return
        with self._lock:
            known = self._kinds.get(kind, KindStatistics(Isolation.CONTEXT, False, ()))
            if known.pinned or known.tier is not ran_in:
                return
            step = -1 if stuck else 1
            after = _ORDER[min(_ORDER.index(ran_in) + step, len(_ORDER) - 1)]
            if after is ran_in:
                return
            self._kinds[kind] = KindStatistics(after, stuck, (*known.reasons, reason))
        emit(IsolationEscalated(kind, ran_in.value, after.value, reason))

    def statistics(self) -> dict[str, KindStatistics]:
        """Return what is known, by kind."""
        with self._lock:
            return dict(self._kinds)

    def forget_parent(self) -> None:
        """Have an unlocked lock, in a forked child; what was learnt stays true. Called by the fork hook."""
        self._lock = allocate_lock()


def _reason(signs: Signs, error: BaseException | None) -> str | None:
    if signs.blocked:
        return "it blocked its loop"
    if signs.spilled:
        return f"{signs.spilled} of its tasks outlived it"
    if signs.abandoned:
        return "it ignored its cancellation"
    while error is not None:
        if isinstance(error, AffinityError) or (isinstance(error, RuntimeError) and _AFFINITY.search(str(error))):
            return f"it used what lives on another loop ({type(error).__name__})"
        error = error.__cause__
    return None
