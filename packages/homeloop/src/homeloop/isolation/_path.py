"""The path on which a worker finds modules: this process's, and the folders of what was loaded off it."""

import os
import sys
from importlib.machinery import PathFinder
from types import ModuleType


def import_path(*parts: bytes) -> list[str]:
    """
    Return the path on which what is named in pickled data can be imported, as far as it was from files.

    A program may load its modules from folders that are on the path only for that moment, as Celery does with the
    current one when it loads the app. Such folders come last.
    """
    entries: list[object] = [*sys.path]
    path = [each for each in entries if isinstance(each, str)]  # Python skips others, too
    folders = _off_path.find(path)
    return path + [
        folder for folder, names in folders.items() if any(name in part for name in names for part in parts)
    ]


class _OffPath:
    """
    The folders off the path that modules of this process were loaded from, with these modules' names.

    Looked for again when there are other modules, or the path is another one. Thread: any.
    """

    def __init__(self) -> None:
        self._seen: tuple[object, ...] | None = None
        self._folders: dict[str, list[bytes]] = {}

    def find(self, path: list[str]) -> dict[str, list[bytes]]:
        """Return the modules' names, as pickled data has them, by folder."""
        seen = len(sys.modules), tuple(path)
        if seen != self._seen:
            self._folders = _folders_off({os.path.abspath(each) for each in path})  # noqa: PTH100 - pure text
            self._seen = seen
        return self._folders


_off_path = _OffPath()


def _folders_off(path: set[str]) -> dict[str, list[bytes]]:
    folders: dict[str, list[bytes]] = {}
    for name, module in tuple(sys.modules.items()):
        if "." in name or name in _MAINS:
            continue
        folder = _folder(module)
        if folder is None or folder in path:
            continue
        found = PathFinder.find_spec(name, [folder])  # not, if it was loaded under another name than its file's
        if found is not None and found.origin == module.__spec__.origin:  # type: ignore[union-attr]
            folders.setdefault(folder, []).append(name.encode())
    return folders


_MAINS = ("__main__", "__mp_main__")


def _folder(module: ModuleType) -> str | None:
    """Find the folder that a module or package lies in; None if it is not from a file."""
    spec = getattr(module, "__spec__", None)
    origin = getattr(spec, "origin", None)
    if not isinstance(origin, str) or not getattr(spec, "has_location", False):
        return None
    folder = os.path.dirname(os.path.abspath(origin))  # noqa: PTH100, PTH120 - pure text
    is_package = getattr(spec, "submodule_search_locations", None) is not None
    return os.path.dirname(folder) if is_package else folder  # noqa: PTH120 - pure text
