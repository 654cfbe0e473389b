"""Places of ``max_in_flight``: who holds one, as far as the calling code's context tells."""

from contextvars import ContextVar
from types import TracebackType
from typing import Any

from homeloop.runtime._call import Call


class Place:
    """
    One place on one home, held from entering to leaving it.

    It goes by context: what a call does, and whatever inherits its context, holds the call's place as long as
    the call runs; so does the body of an iteration or of an entered context manager. Who holds a place could
    be waited for by those who hold the others, and so must not wait for a second one.
    """

    __slots__ = ("_held", "_home")

    def __init__(self, home: object) -> None:
        self._home = home
        self._held = True

    def is_on(self, home: object) -> bool:
        """Tell whether it is held, and on that home."""
        return self._held and self._home is home

    def is_held(self) -> bool:
        """Tell whether it is held."""
        return self._held

    def take_for(self, call: Call[Any]) -> None:
        """Let a call hold it. The caller never sees it: it is not brought back with the call's context."""
        places = call.context.run(self._with_others)
        for context in (call.context, call.before):  # the latter is what the former is compared with
            context.run(_places.set, places)

    def give_back(self) -> None:
        """Hold it no more, whoever inherited it, nor the home."""
        self._held = False
        self._home = None

    def _with_others(self) -> "tuple[Place, ...]":
        return (*filter(Place.is_held, _places.get()), self)

    def __enter__(self) -> None:
        _places.set(self._with_others())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.give_back()
        places = _places.get()
        if self in places:  # else this is another context: a generator may be closed in any
            _places.set(tuple(place for place in places if place is not self))


_places: ContextVar[tuple[Place, ...]] = ContextVar("homeloop_places", default=())


def holds_place(home: object) -> bool:
    """Tell whether the calling code holds a place on a home already."""
    return any(place.is_on(home) for place in _places.get())
