"""Patches: methods exchanged while tracing is on, and put back without a trace."""

from collections.abc import Callable
from typing import Any, cast

_ABSENT = object()

Method = Callable[..., Any]


class Patches:
    """Methods that were exchanged, in the order in which that was done. Not for two threads at once."""

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, object, object]] = []

    def wrap(self, owner: Any, name: str, wrapper: Callable[[Method], Method]) -> None:
        """
        Exchange ``owner.name`` for ``wrapper(original)``; do nothing where there is no such name.

        Args:
            owner: A class or a module that can be written to.
            wrapper: Takes the function as it is found, inherited ones included.
        """
        original = getattr(owner, name, None)
        if original is None:
            return
        before = _own(owner, name)
        changed = wrapper(original)
        changed.__name__ = name
        changed.__wrapped__ = original  # type: ignore[attr-defined]
        try:
            setattr(owner, name, changed)
        except TypeError:
            return  # a class written in C
        self._undo.append((owner, name, before, changed))

    def undo(self) -> None:
        """Put everything back; what somebody else has exchanged since then is left alone."""
        while self._undo:
            owner, name, before, changed = self._undo.pop()
            if _own(owner, name) is not changed:
                continue
            if before is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, before)


def _own(owner: Any, name: str) -> object:
    """Return what a class or module has under a name itself, without its bases."""
    return cast("dict[str, object]", vars(owner)).get(name, _ABSENT)
