"""Tracing: how much is recorded and checked, chosen by a level."""

import asyncio
import sys
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

from homeloop._provenance import object_records
from homeloop.runtime._fork import forget_in_child
from homeloop.runtime._originals import RLock
from homeloop.runtime._trace_guards import (
    patch_deep_guards,
    patch_deep_loop_guards,
    patch_guards,
    patch_loop_guards,
)
from homeloop.runtime._trace_imports import Hook, hook_modules
from homeloop.runtime._trace_leftovers import forget_generators, patch_generators, patch_leftovers
from homeloop.runtime._trace_loops import patch_loops
from homeloop.runtime._trace_objects import constructor_hooks, patch_tasks
from homeloop.runtime._trace_patches import Patches
from homeloop.runtime._trace_sites import deep_spot, forget_reports, user_spot

HIGHEST = 3


class _Tracing:
    def __init__(self) -> None:
        self.level = 0
        self._patches = Patches()
        self._finder: MetaPathFinder | None = None
        self._setting = RLock()  # re-entered by signal handlers

    def set_level(self, level: int) -> None:
        forget_in_child(self)
        with self._setting:
            self._set_level(level)

    def forget_parent(self) -> None:
        """Have a lock of one's own, in a forked child. Called by the fork hook."""
        self._setting = RLock()

    def _set_level(self, level: int) -> None:
        self._undo()
        object_records.forget_unreferred()
        forget_reports()
        forget_generators()
        try:
            self._patch(level)
        except BaseException:
            self._undo()
            raise
        self.level = level

    def _undo(self) -> None:
        self.level = 0
        self._patches.undo()
        if (
            self._finder is not None and self._finder in sys.meta_path
        ):  # else somebody has put back a list of before
            sys.meta_path.remove(self._finder)
        self._finder = None

    def _patch(self, level: int) -> None:
        if level < 1:
            return
        find_spot = deep_spot if level >= HIGHEST else user_spot

        def patch_class(kind: Any) -> None:
            patch_loops(self._patches, kind)
            patch_loop_guards(self._patches, kind)
            if level >= 2:
                patch_tasks(self._patches, kind, find_spot)
            if level >= HIGHEST:
                patch_generators(self._patches, kind)
                patch_deep_loop_guards(self._patches, kind)

        def patch_uvloop(module: ModuleType) -> None:
            kind = getattr(module, "Loop", None)
            if isinstance(kind, type):  # else it is a double that stands in uvloop's place
                patch_class(kind)

        patch_class(asyncio.BaseEventLoop)
        patch_guards(self._patches)
        if level >= HIGHEST:
            patch_leftovers(self._patches)
            patch_deep_guards(self._patches)
        hooks = {**constructor_hooks(self._patches, find_spot), "uvloop": patch_uvloop}
        self._finder = hook_modules({name: self._while_on(hook) for name, hook in hooks.items()})

    def _while_on(self, hook: Hook) -> Hook:
        """Have a hook do nothing for a module that is loaded when this level is over."""
        switch = self._patches.switch

        def patch(module: ModuleType) -> None:
            with self._setting:  # modules are loaded on any thread, beside one that chooses another level
                if switch.is_on:
                    hook(module)

        return patch


_tracing = _Tracing()


def trace_level() -> int:
    """Return the level of tracing, 0 to 3."""
    return _tracing.level


def set_trace_level(level: int) -> None:
    """
    Choose what is recorded and checked; 0 puts everything back as it was, and so does an error meanwhile.

    Raises:
        ValueError: There is no such level. Nothing was changed.
    """
    if level not in range(HIGHEST + 1):
        raise ValueError(
            f"there is no trace level {level!r}: 0 is off, 1 for production, 2 adds tasks, 3 everything"
        )
    _tracing.set_level(level)
