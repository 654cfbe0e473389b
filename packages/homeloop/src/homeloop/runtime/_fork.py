"""What a fork does: the child forgets its parent's loops without touching them."""

import os
from typing import Protocol
from weakref import WeakSet


class Inherited(Protocol):
    """Something that a forked child must forget."""

    def forget_parent(self) -> None:
        """
        Drop what belongs to the parent process.

        Called in the child before its own code goes on, with one thread. Must not block, so it
        may replace locks but not take them.
        """
        ...


_inherited: WeakSet[Inherited] = WeakSet()
_watching = False

_parents: list[object] = []
"""Loops of the parent, kept alive in the child: closing one would write to sockets and selectors
that the parent still uses (an epoll set is shared across fork)."""


def keep_untouched(inherited: object) -> None:
    """Never let go of something that belongs to the parent process."""
    _parents.append(inherited)


def forget_in_child(inherited: Inherited) -> None:
    """Call ``inherited.forget_parent()`` in every child forked from now on, while the object lives."""
    global _watching
    _inherited.add(inherited)
    if not _watching and hasattr(os, "register_at_fork"):  # not on Windows
        _watching = True
        os.register_at_fork(after_in_child=_forget_all)


def _forget_all() -> None:
    for inherited in tuple(_inherited):
        inherited.forget_parent()
