"""Tracing of modules that the program loads later: they are patched as soon as it has them."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

Hook = Callable[[ModuleType], None]


class _Importing(MetaPathFinder):
    """Has a module's hook called as soon as the program has loaded it; loads nothing itself."""

    def __init__(self, hooks: Mapping[str, Hook]) -> None:
        self._hooks = hooks
        self._busy: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._hooks or fullname in self._busy:
            return None
        self._busy.add(fullname)
        try:
            spec = find_spec(fullname)
        finally:
            self._busy.discard(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Watched(spec.loader, self._hooks[fullname])
        return spec


class _Watched(Loader):
    """
    Loads one module as its own loader does, then calls a hook; nothing of it is left in the module.

    Not an attribute set on the loader: one loader may load many modules, as that of a zip file does.
    """

    def __init__(self, loader: Loader, hook: Hook) -> None:
        self._loader, self._hook = loader, hook

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # who finds a module may ask for its source without loading it

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._hook(module)


def hook_modules(hooks: Mapping[str, Hook]) -> MetaPathFinder:
    """
    Call each hook with its module: now if it is loaded, else as soon as it is, on the thread that loads it.

    What was found before the finder is taken away may be loaded later, and calls its hook then.

    Returns:
        The finder that was put on ``sys.meta_path``.
    """
    for name, hook in hooks.items():
        module = sys.modules.get(name)
        if module is not None:  # None is there to keep a module from being imported
            hook(module)
    finder = _Importing(hooks)
    sys.meta_path.insert(0, finder)
    return finder
