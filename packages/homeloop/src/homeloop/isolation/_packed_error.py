"""
Packed errors: what was raised in one process, on its way to another.

An error travels with its causes, and a group with its members, each by itself: what cannot cross costs the others
nothing.
"""

import pickle
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from homeloop.errors import RemoteError
from homeloop.isolation._transfer import carry, loads

Group: TypeAlias = BaseExceptionGroup[BaseException]

_DEEPEST = 50  # of causes and groups, one in another: pickle stops at some 200. More than anybody reads


@dataclass(frozen=True, slots=True)
class PackedError:
    """
    An error as it travels.

    Attributes:
        data: The pickled error, or what a group is beside its members; None if it, and everything like it, does
            not survive pickle.
        kind, text: What it is, a group's message alone, for the one who cannot rebuild it.
        notes: Its notes; the traceback of over there will be one more.
        traceback: The traceback, as text, without those of causes and members; empty if it stands elsewhere.
        members: A group's; None if it is no group.
    """

    data: bytes | None
    kind: str
    text: str
    notes: tuple[str, ...]
    traceback: str = ""
    cause: "PackedError | None" = None
    context: "PackedError | None" = None
    suppress: bool = False
    members: "tuple[PackedError, ...] | None" = None


def pack_error(error: BaseException, within: frozenset[int] = frozenset()) -> PackedError:
    """
    Take an error apart, with its causes and members. Never fails.

    Args:
        within: The ids of those whose causes or members it is one of.
    """
    within |= {id(error)}
    cause, context = error.__cause__, error.__context__ if error.__cause__ is None else None
    members: tuple[PackedError, ...] | None = None
    group = _as_group(error)
    if group is not None:
        members = tuple(_pack_further(member, within) or _described(member) for member in group.exceptions)
        data, text = _shell_data(group), group.message
    else:
        data, text = _survives(error, error) or _survives(error, _likeness(error)), _text(error)
    return PackedError(
        data,
        _kind(error),
        text,
        _notes(error),
        _own_traceback(error),
        None if cause is None else _pack_further(cause, within),
        None if context is None else _pack_further(context, within),
        error.__suppress_context__,
        members,
    )


def _pack_further(error: BaseException, within: frozenset[int]) -> PackedError | None:
    """Pack a cause or member, unless that would go in a circle, or too deep."""
    return None if id(error) in within or len(within) >= _DEEPEST else pack_error(error, within)


def _described(error: BaseException) -> PackedError:
    return PackedError(None, _kind(error), _text(error), _notes(error))


def unpack_error(packed: PackedError, where: str) -> BaseException:
    """Rebuild an error, with the traceback of ``where`` in a note. Never fails."""
    error = _rebuilt_group(packed, packed.members, where) if packed.members is not None else _rebuilt_error(packed)
    if packed.traceback:
        error.add_note(f"traceback in {where}:\n{packed.traceback}")
    if packed.cause is not None:
        error.__cause__ = unpack_error(packed.cause, where)
    if packed.context is not None:
        error.__context__ = unpack_error(packed.context, where)
    error.__suppress_context__ = packed.suppress
    return error


def _rebuilt_error(packed: PackedError) -> BaseException:
    error: object = None
    if packed.data is not None:
        try:
            error = loads(packed.data)
        except Exception:  # the class is over there only, or its constructor wants something else
            error = None
    if isinstance(error, BaseException):
        return error
    return _with_notes(RemoteError(packed.kind, packed.text), packed.notes)


# -- what survives of an error -------------------------------------------------------------------------


def _survives(error: BaseException, candidate: object) -> bytes | None:
    try:
        data = carry(candidate)
        return data if type(loads(data)).__qualname__ == type(error).__qualname__ else None
    except Exception:  # whatever an error's own constructor and state do
        return None


def _likeness(error: BaseException) -> "_Likeness":
    """Make an error of the same type without calling its constructor, and of what can be pickled of it."""
    return _Likeness(type(error), tuple(map(_pickled, error.args)), _state(error))


class _Likeness:
    """Unpickles as the error itself."""

    def __init__(self, kind: type[BaseException], args: tuple[object, ...], state: dict[str, object]) -> None:
        self._parts = kind, args, state

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, self._parts


def _rebuild(kind: type[BaseException], args: tuple[object, ...], state: dict[str, object]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(state)
    str(error)  # or it is no use
    return error


# -- groups --------------------------------------------------------------------------------------------


class _Members:
    """The class itself stands among a group's arguments where its members stood."""


@dataclass(frozen=True, slots=True)
class _Shell:
    """A group without its members."""

    kind: type[Group]
    message: str
    args: tuple[object, ...]
    state: dict[str, object]

    def fill(self, members: list[BaseException]) -> Group:
        """Make the group, without calling its constructor."""
        # Not the ``__new__`` of the kind, which may want other arguments.
        group = BaseExceptionGroup.__new__(self.kind, self.message, members)
        group.args = tuple(members if arg is _Members else arg for arg in self.args)
        vars(group).update(self.state)
        str(group)  # or it is no use
        return group


def _as_group(error: BaseException) -> Group | None:
    return cast("Group", error) if isinstance(error, BaseExceptionGroup) else None


def _shell_data(group: Group) -> bytes | None:
    args = tuple(_Members if _are_members(arg, group) else _pickled(arg) for arg in group.args)
    try:
        data = carry(_Shell(type(group), group.message, args, _state(group)))
        shell: _Shell = loads(data)
        shell.fill([*group.exceptions])
    except Exception:  # whatever a group's own class and state do
        return None
    return data


def _are_members(arg: object, group: Group) -> bool:
    return isinstance(arg, list | tuple) and tuple(cast("Sequence[object]", arg)) == group.exceptions


def _rebuilt_group(packed: PackedError, packed_members: tuple[PackedError, ...], where: str) -> BaseException:
    members = [unpack_error(member, where) for member in packed_members]
    if packed.data is not None:
        with suppress(Exception):  # as of errors
            shell: _Shell = loads(packed.data)
            return shell.fill(members)
    group = BaseExceptionGroup(packed.text, members)  # or an ExceptionGroup, if they all are Exceptions
    return _with_notes(group, (*packed.notes, f"in {where} this group was a {packed.kind}"))


# -- what an error tells -------------------------------------------------------------------------------


def _kind(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _notes(error: BaseException) -> tuple[str, ...]:
    return tuple(map(_text, getattr(error, "__notes__", ())))


def _with_notes(error: BaseException, notes: tuple[str, ...]) -> BaseException:
    for note in notes:
        error.add_note(note)
    return error


def _own_traceback(error: BaseException) -> str:
    told = traceback.TracebackException(type(error), error, error.__traceback__)
    told.exceptions = None  # members tell their own
    return "".join(told.format(chain=False)).rstrip()


def _state(error: BaseException) -> dict[str, object]:
    return {name: _pickled(value) for name, value in vars(error).items()}


def _pickled(value: object) -> object:
    try:
        pickle.loads(pickle.dumps(value))
    except Exception:
        return _text(value)
    return value


def _text(value: object) -> str:
    try:
        return str(value) if isinstance(value, BaseException | str) else repr(value)
    except Exception as error:
        return f"<{type(value).__qualname__}, whose text raised {type(error).__name__}>"
