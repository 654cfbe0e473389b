"""Transfer: values, calls and context variables on their way to another process and back."""

import asyncio
import importlib
import io
import pickle
import runpy
import sys
import types
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import Context, ContextVar
from functools import partial
from typing import Any

from homeloop.errors import NotTransferableError
from homeloop.isolation._culprit import find_culprit, type_name

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
        (how, where), cls.origin = cls.origin, None
        module = types.ModuleType(_MAIN_OVER_THERE)
        cls.loading = True
        try:
            content = (
                runpy.run_module(where, run_name=_MAIN_OVER_THERE, alter_sys=True)
                if how == "module"
                else runpy.run_path(where, run_name=_MAIN_OVER_THERE)
            )
        except BaseException:
            cls.origin = how, where  # whoever asks next is told the same
            raise
        finally:
            cls.loading = False
        cls.imported = True
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
    """Rebuild what `dumps` or `carry` has taken apart."""
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


_REMEDY = "pass data, and open what it needs over there"
_IMPORTABLE = "pass what can be imported and pickled, or install homeloop[process] to carry it by value"


class UncarriedError(Exception):
    """
    One of several values cannot be carried; what is to be said of it costs too much if nobody reads it.

    Attributes:
        number: Which.
        reason: What the pickler raised; None if the value is of a program that cannot be imported.
        pickler: The kind of pickler that was tried last.
        by_value: Whether that can carry by value.
    """

    def __init__(
        self, number: int, reason: Exception | None, pickler: type[pickle.Pickler], by_value: bool
    ) -> None:
        super().__init__(number)
        self.number, self.reason, self.pickler, self.by_value = number, reason, pickler, by_value


def carry(*values: object) -> bytes:
    """
    Take values apart, by reference where they can be imported, else by value if cloudpickle is there.

    What they share stays shared: they are one stream, for `loads` to rebuild the first of, `load_named` all.

    Raises:
        UncarriedError: One of them cannot be carried.
    """
    try:
        data = _dump(pickle.Pickler, False, values)
        if _MAIN.encode() not in data or _main_is_shared():
            return data
        stuck = UncarriedError(_number_of_main(values), None, pickle.Pickler, False)
    except UncarriedError as error:
        stuck = error
    try:
        cloudpickle = importlib.import_module("cloudpickle")
    except ModuleNotFoundError:
        raise stuck from None
    return _dump(cloudpickle.Pickler, True, values)


def _dump(pickler: type[pickle.Pickler], by_value: bool, values: Sequence[object]) -> bytes:
    file = io.BytesIO()
    dump = pickler(file, pickle.HIGHEST_PROTOCOL).dump
    for number, value in enumerate(values):
        try:
            dump(value)
        except Exception as error:  # pickling runs code of any kind
            raise UncarriedError(number, error, pickler, by_value) from None
    return file.getvalue()


def _number_of_main(values: Sequence[object]) -> int:
    """Return the number of the first value that is of the main program, which some of them is."""
    return next(
        number for number, value in enumerate(values) if _MAIN.encode() in _dump(pickle.Pickler, False, (value,))
    )


def dumps(what: str, value: object, remedy: str = _REMEDY) -> bytes:
    """
    Take a value apart as `carry` does.

    Args:
        what: What an error calls it; it adds the type.
        remedy: What an error says to do.

    Raises:
        NotTransferableError: It cannot be carried.
    """
    try:
        return carry(value)
    except UncarriedError as stuck:
        raise _refusal(f"{what} ({type_name(value)})", value, stuck, remedy) from stuck.reason


def _refusal(what: str, value: object, stuck: UncarriedError, remedy: str) -> NotTransferableError:
    if stuck.reason is None:
        return NotTransferableError(what, "it belongs to a program that cannot be imported", _IMPORTABLE)
    way, part = find_culprit(value, partial(_crosses, stuck.pickler))
    where = f"its {way} is a {type_name(part)}: " if way else ""
    told = f"{where}{type(stuck.reason).__name__}: {stuck.reason}"
    return NotTransferableError(what, told, remedy if stuck.by_value else _IMPORTABLE)


def _crosses(pickler: type[pickle.Pickler], value: object) -> bool:
    try:
        _dump(pickler, True, (value,))
    except UncarriedError:
        return False
    return True


def dump_named(head: object, named: Sequence[tuple[str, object]]) -> bytes:
    """
    Take several values apart, so that whoever cannot carry or rebuild one of them can name it.

    Args:
        head: Something plain that goes first.
        named: The values, each with its name.

    Raises:
        NotTransferableError: One of the values cannot be carried.
    """
    try:
        return carry((head, [what for what, _ in named]), *(value for _, value in named))
    except UncarriedError as stuck:
        what, value = named[stuck.number - 1]
        raise _refusal(what, value, stuck, _REMEDY) from stuck.reason


def load_named(data: bytes) -> tuple[Any, list[Any]]:
    """
    Rebuild what `dump_named` has taken apart: the head, and the values.

    Raises:
        NotTransferableError: One of the values cannot be rebuilt here.
    """
    load = _Unpickler(io.BytesIO(data)).load
    head, names = load()
    values: list[Any] = []
    for what in names:
        with _rebuilding(what):
            values.append(load())
    return head, values


@contextmanager
def _rebuilding(what: str) -> Generator[None]:
    """Have an error that is raised here, by importing for instance, tell what could not be rebuilt."""
    try:
        yield
    except NotTransferableError:  # it says itself what is missing
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and type(error) is not SystemExit:  # a signal's, which came just now
            raise
        told = f"{type(error).__name__}: {error}"
        raise NotTransferableError(what, told, "it must be possible to import it over there") from error


# -- calls ---------------------------------------------------------------------------------------------


# Any: a function, or a partial of one, and whatever it takes.
def dump_call(name: str, fn: Any, args: tuple[Any, ...]) -> bytes:
    """
    Take a function and its arguments apart.

    Args:
        name: What errors call the function.

    Raises:
        NotTransferableError: One of them cannot be carried.
    """
    keywords: dict[str, Any] = {}
    while type(fn) is partial:
        fn, args, keywords = fn.func, (*fn.args, *args), {**fn.keywords, **keywords}
    named: list[tuple[str, object]] = [(f"the function {name}", fn)]
    named += [(f"argument {at} of {name} ({type_name(each)})", each) for at, each in enumerate(args)]
    named += [(f"keyword argument {at!r} of {name} ({type_name(each)})", each) for at, each in keywords.items()]
    return dump_named(tuple(keywords), named)


def load_call(data: bytes) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """
    Rebuild what `dump_call` has taken apart.

    Raises:
        NotTransferableError: The function is not found here, or an argument cannot be rebuilt.
    """
    names, (fn, *args) = load_named(data)
    if not names:
        return fn, tuple(args)
    first = len(args) - len(names)
    return partial(fn, **dict(zip(names, args[first:], strict=True))), tuple(args[:first])


def _main_is_shared() -> bool:
    return main_origin() is not None or Main.origin is not None or Main.imported


# -- context variables -------------------------------------------------------------------------------

_paths: dict[ContextVar[Any], tuple[str, str]] = {}


def dump_variables(variables: Sequence[ContextVar[Any]]) -> bytes:
    """
    Take the values of context variables apart, of those that are set.

    Raises:
        NotTransferableError: One of them cannot be carried, or has no address.
    """
    are_set = [var for var in dict.fromkeys(variables) if _is_set(var)]
    named = [(f"context variable {var.name!r} ({type_name(var.get())})", var.get()) for var in are_set]
    return dump_named([_path(var) for var in are_set], named)


def load_variables(data: bytes, context: Context) -> None:
    """
    Set the context variables in a context.

    Raises:
        NotTransferableError: A variable is not found here, or its value cannot be rebuilt.
    """
    for (module, name), value in zip(*load_named(data), strict=True):
        with _rebuilding(f"context variable {name!r}"):
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
