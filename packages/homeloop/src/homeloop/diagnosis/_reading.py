"""Read attributes of unknown objects without running any of their code."""

from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, cast

_DICT_OF_TYPE = type.__dict__["__dict__"]
_MRO_OF_TYPE = type.__dict__["__mro__"]
_MODULE_OF_TYPE = type.__dict__["__module__"]
_QUALNAME_OF_TYPE = type.__dict__["__qualname__"]
_MISSING = object()
_LOOP_ATTRIBUTES = ("_loop", "loop", "_io_loop")
_EVENT_LOOP = ("asyncio.events", "AbstractEventLoop")

# Getters written in C that read a field and do nothing else.
_PLAIN_GETTERS = frozenset(("_asyncio", "builtins"))


def kinds(value: object) -> tuple[type, ...]:
    """Return the classes of an object, its own first, whatever its metaclass says."""
    return cast("tuple[type, ...]", _MRO_OF_TYPE.__get__(type(value)))


def kind_name(kind: type) -> tuple[str, str]:
    """Return module and qualified name of a class."""
    module = _MODULE_OF_TYPE.__get__(kind)
    return module if type(module) is str else "builtins", cast("str", _QUALNAME_OF_TYPE.__get__(kind))


def is_kind(value: object, module: str, *names: str) -> bool:
    """Say whether one of an object's classes has one of these qualified names, in a module or its submodules."""
    for kind in kinds(value):
        where, name = kind_name(kind)
        if name in names and (where == module or where.startswith(f"{module}.")):
            return True
    return False


def attribute(holder: object, name: str) -> Any:  # Any: it is whatever the program put there
    """
    Return an attribute as it is stored, or None.

    Properties, ``__getattr__`` and descriptors written in Python are not called.
    """
    found: Any = _MISSING
    for kind in kinds(holder):
        found = _DICT_OF_TYPE.__get__(kind).get(name, _MISSING)
        if found is not _MISSING:
            if type(found) is MemberDescriptorType or (
                type(found) is GetSetDescriptorType and kind_name(kind)[0] in _PLAIN_GETTERS
            ):
                try:
                    return found.__get__(holder)
                except AttributeError:
                    return None  # an empty slot
            break
    value = stored(holder).get(name, _MISSING)
    if value is not _MISSING:
        return value
    if found is _MISSING or any("__get__" in _DICT_OF_TYPE.__get__(kind) for kind in kinds(found)):
        return None
    return found


def stored(holder: object) -> dict[str, Any]:
    """Return the attributes that an object keeps in its ``__dict__``; empty if it has none."""
    for kind in kinds(holder):
        descriptor = _DICT_OF_TYPE.__get__(kind).get("__dict__")
        if type(descriptor) is GetSetDescriptorType:
            values = descriptor.__get__(holder)
            return cast("dict[str, Any]", values) if type(values) is dict else {}
    return {}


def is_loop(value: object) -> bool:
    """Say whether an object is an event loop."""
    return any(kind_name(kind) == _EVENT_LOOP for kind in kinds(value))


def owner_loop(value: object) -> Any:  # Any: an event loop, of whatever class
    """Return the loop that an object says it lives on, or None; a loop is owned by none."""
    if is_loop(value):
        return None
    for name in _LOOP_ATTRIBUTES:
        loop = attribute(value, name)
        if loop is not None and is_loop(loop):
            return loop
    return None


def loop_state(loop: Any) -> str:
    """Return ``closed``, ``running`` or ``idle``, as a loop of asyncio or uvloop says now; else ``unknown``."""
    closed = attribute(loop, "_closed")
    if closed is None:
        if not any(kind_name(kind)[0].partition(".")[0] == "uvloop" for kind in kinds(loop)):
            return "unknown"
        return "closed" if loop.is_closed() else "running" if loop.is_running() else "idle"
    if closed is True:
        return "closed"
    return "idle" if attribute(loop, "_thread_id") is None else "running"
