"""Patches: methods exchanged while tracing is on, and put back without a trace."""

from collections.abc import Callable
from typing import Any, cast

_ABSENT = object()

Method = Callable[..., Any]


class Switch:
    """Whether the methods exchanged together do what they are for."""

    __slots__ = ("is_on",)

    def __init__(self) -> None:
        self.is_on = True


class Patches:
    """
    Methods that were exchanged, in the order in which that was done. Not for two threads at once.

    Attributes:
        switch: On until `undo`, which leaves a new one for what is exchanged afterwards.
    """

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, object, object]] = []
        self.switch = Switch()

    def wrap(self, owner: Any, name: str, wrapper: Callable[[Method, Switch], Method]) -> None:
        """
        Exchange ``owner.name`` for ``wrapper(original, switch)``; do nothing where there is no such name.

        Args:
            owner: A class or a module that can be written to.
            wrapper: Takes the function as it is found, inherited ones included. Others may wrap
                what it returns, and keep it after `undo`: with the switch off it must only call the original.
        """
        original = getattr(owner, name, None)
        if original is None:
            return
        before = _own(owner, name)
        changed = wrapper(original, self.switch)
        changed.__name__ = name
        changed.__wrapped__ = original  # type: ignore[attr-defined]
        try:
            setattr(owner, name, changed)
        except TypeError:
            return  # a class written in C
        self._undo.append((owner, name, before, changed))

    def undo(self) -> None:
        """Put everything back; what somebody else has exchanged since then is left alone."""
        self.switch.is_on = False
        self.switch = Switch()
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
