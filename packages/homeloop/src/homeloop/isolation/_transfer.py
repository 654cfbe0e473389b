"""Transfer: functions, values and context variables on their way to another process and back."""

import asyncio
import importlib
import io
import pickle
import runpy
import sys
import types
from collections.abc import Sequence
from contextvars import Context, ContextVar
from typing import Any

from homeloop.errors import NotTransferableError

_MAIN = "__main__"
_MAIN_OVER_THERE = "__mp_main__"  # multiprocessing's name for it, which programs may know


def main_origin() -> tuple[str, str] | None:
    """Tell how another process can import the program's main module; None if it cannot (a notebook, ``-c``)."""
    main = sys.modules.get(_MAIN)
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != _MAIN:
        return "module", str(spec.name)
    path = getattr(main, "__file__", None)
    return None if path is None or path.startswith("<") else ("path", str(path))


class Main:
    """The main module of the program that a worker works for; imported when something of it is asked for."""

    origin: tuple[str, str] | None = None  # set in a worker, until it is imported
    imported = False
    loading = False

    @classmethod
    def load(cls) -> types.ModuleType:
        """Import it under another name, so that its ``if __name__ == "__main__"`` does not run."""
        module = sys.modules.get(_MAIN_OVER_THERE)
        if module is not None and cls.origin is None:
            return module
        if cls.origin is None:
            return sys.modules[_MAIN]
        (how, where), cls.origin, cls.imported = cls.origin, None, True
        module = types.ModuleType(_MAIN_OVER_THERE)
        cls.loading = True
        try:
            content = (
                runpy.run_module(where, run_name=_MAIN_OVER_THERE, alter_sys=True)
                if how == "module"
                else runpy.run_path(where, run_name=_MAIN_OVER_THERE)
            )
        finally:
            cls.loading = False
        vars(module).update(content)
        sys.modules[_MAIN_OVER_THERE] = sys.modules[_MAIN] = module
        return module

    @classmethod
    def find(cls, name: str) -> Any:
        """
        Return what it defines under a name, which may be dotted.

        Raises:
            NotTransferableError: It does not, when it is imported.
        """
        found: Any = cls.load()
        for part in name.split("."):
            try:
                found = getattr(found, part)
            except AttributeError:
                raise NotTransferableError(
                    name,
                    "the main program does not define it when a worker imports it",
                    'define it above the guard `if __name__ == "__main__":`',
                ) from None
        return found


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name in (_MAIN, _MAIN_OVER_THERE):
            return Main.find(global_name)
        return super().find_class(module_name, global_name)


def loads(data: bytes) -> Any:
    """Rebuild what `dumps` has taken apart."""
    return _Unpickler(io.BytesIO(data)).load()


async def loads_aside(data: bytes) -> Any:
    """Rebuild what `dumps` has taken apart; what is large on another thread, so that the running loop goes on."""
    if len(data) < _LARGE:
        return loads(data)
    return await asyncio.to_thread(_Unpickler(_Portions(data)).load)


_LARGE = 1_000_000  # bytes; rebuilding them takes some 50 ms, starting a thread 0.1


class _Portions:
    """
    Bytes that are read by methods written in Python.

    Rebuilding from bytes alone, the interpreter lock is never let go of: another thread would help nobody.
    """

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int, /) -> bytes:
        """Read so many bytes."""
        return self._file.read(size)

    def readline(self) -> bytes:
        """Read a line."""
        return self._file.readline()

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer."""
        return self._file.readinto(buffer)


def dumps(what: str, value: object) -> bytes:
    """
    Take a value apart, by reference where it can be imported, else by value if cloudpickle is there.

    Raises:
        NotTransferableError: It cannot be carried.
    """
    reason: Exception | None = None
    try:
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        if _MAIN.encode() not in data or _main_is_shared():
            return data
    except Exception as error:  # pickling runs code of any kind
        reason = error
    try:
        cloudpickle = importlib.import_module("cloudpickle")
    except ModuleNotFoundError:
        told = (
            f"{type(reason).__name__}: {reason}" if reason else "it belongs to a program that cannot be imported"
        )
        raise NotTransferableError(
            what, told, "pass what can be imported and pickled, or install homeloop[process] to carry it by value"
        ) from reason
    try:
        carried: bytes = cloudpickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise NotTransferableError(
            what, f"{type(error).__name__}: {error}", "pass data, and open what it needs over there"
        ) from error
    return carried


def _main_is_shared() -> bool:
    return main_origin() is not None or Main.origin is not None or Main.imported


# -- context variables -------------------------------------------------------------------------------

_paths: dict[ContextVar[Any], tuple[str, str]] = {}


def pack_variables(variables: Sequence[ContextVar[Any]]) -> list[tuple[tuple[str, str], Any]]:
    """Take along the values of context variables, those that are set."""
    context = dict.fromkeys(variables)
    return [(_path(var), var.get()) for var in context if _is_set(var)]


def unpack_variables(packed: list[tuple[tuple[str, str], Any]], context: Context) -> None:
    """Set context variables in a context."""
    for (module, name), value in packed:
        is_main = module in (_MAIN, _MAIN_OVER_THERE)
        var = Main.find(name) if is_main else getattr(importlib.import_module(module), name)
        context.run(var.set, value)


def _is_set(var: ContextVar[Any]) -> bool:
    missing = object()
    return var.get(missing) is not missing


def _path(var: ContextVar[Any]) -> tuple[str, str]:
    """Find the module's attribute that a variable is: it has no other address."""
    path = _paths.get(var)
    if path is None:
        for module in list(sys.modules.values()):
            for name, value in list(getattr(module, "__dict__", {}).items()):
                if value is var:
                    path = _paths[var] = module.__name__, name
                    return path
        raise NotTransferableError(
            f"context variable {var.name!r}", "no module has it as an attribute", "define it at module level"
        )
    return path
