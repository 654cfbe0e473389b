"""Where loops and the objects on them came from: records that tracing writes and diagnosis reads."""

import itertools
import linecache
import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any, Generic, TypeVar

V = TypeVar("V")

HARNESSES = ("pytest_asyncio", "anyio.pytest_plugin", "starlette.testclient", "fastapi.testclient", "_pytest")
"""How the modules' names begin of what runs loops for tests."""


@dataclass(frozen=True, slots=True)
class Place:
    """
    A place in source code.

    ``column`` and ``end_column`` are counted in characters from 0, ``end_column`` is the first one
    after the span; both are None where the span is not known or covers several lines. ``callers`` are the
    program's own places that led there, innermost first, where tracing was at its highest level.
    """

    file: str
    line: int
    function: str
    column: int | None = None
    end_column: int | None = None
    source: str = ""
    callers: "tuple[Place, ...]" = ()

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


@dataclass(frozen=True, slots=True)
class LoopFact:
    """
    A loop, as far as it is known.

    ``made_at`` and ``closed_at`` are there when the program was traced; ``run_at`` when the loop's start is in
    the traceback; ``state`` is what the loop said when it was diagnosed.
    """

    kind: str
    state: str
    thread: str = ""
    pid: int | None = None
    made_at: Place | None = None
    run_at: Place | None = None
    closed_at: Place | None = None


@dataclass(frozen=True, slots=True)
class Spot:
    """A place as the interpreter knows it: cheap to take, told in full only when somebody asks."""

    code: CodeType
    lasti: int
    line: int
    callers: "tuple[Spot, ...]" = ()

    def place(self) -> Place:
        """Return the place, with the span of the expression where the interpreter recorded one."""
        source = linecache.getline(self.code.co_filename, self.line).rstrip("\n")
        column = end_column = None
        spans = itertools.islice(self.code.co_positions(), self.lasti // 2, None) if self.lasti >= 0 else iter(())
        for line, end_line, start, end in spans:
            if line == end_line == self.line and start is not None and end is not None:
                raw = source.encode()
                column = len(raw[:start].decode("utf-8", "replace"))
                end_column = len(raw[:end].decode("utf-8", "replace"))
            break
        callers = tuple(each.place() for each in self.callers)
        return Place(
            shortened(self.code.co_filename), self.line, self.code.co_qualname, column, end_column, source, callers
        )


def shortened(text: str, *, everywhere: bool = False) -> str:
    """Return a path relative to the working directory, if it lies below it; or a text with such paths."""
    try:
        here = f"{Path.cwd()}{os.sep}"
    except OSError:
        return text  # the directory is gone
    return text.replace(here, "") if everywhere else text.removeprefix(here)


@dataclass(slots=True)
class LoopRecord:
    """
    Where, and in which process, a loop was made; in which and when it last ran; where it was closed.

    ``ran_in`` is None if it never ran. ``began`` and ``ended`` are numbers, the later the greater; ``ended`` is
    None while it runs.
    """

    pid: int
    thread: str
    made_at: Spot | None = None
    ran_in: int | None = None
    began: int = 0
    ended: int | None = None
    closed_at: Spot | None = None


@dataclass(slots=True)
class ObjectRecord:
    """
    Where, in which process, an object that lives on a loop was made; whether the end of a block closed it.

    ``since`` is when, in seconds of `time.monotonic`, where somebody wants to know.
    """

    pid: int
    made_at: Spot | None
    block_ended: bool = False
    since: float | None = None


_numbers = itertools.count()
moments = itertools.count(1)


class IdentityMap(Generic[V]):
    """
    Values by object, compared by identity, which keeps no object alive and calls nothing of it.

    An object that cannot be referred to weakly is known by its address and class: whoever records the
    constructions of a class overwrites the entry of a collected object with its heir's. Thread: any.
    """

    MAX_UNREFERRED = 10_000

    def __init__(self) -> None:
        # The reference is kept beside the value: without it the id of a collected object would be its heir's.
        self._entries: dict[int, tuple[int, weakref.ref[Any], V]] = {}
        self._unreferred: dict[int, tuple[type, V]] = {}

    def put(self, key: object, value: V) -> None:
        """Remember a value for an object until the object is collected."""
        number, entries = id(key), self._entries

        def forget(reference: "weakref.ref[Any]") -> None:
            entry = entries.get(number)
            if entry is not None and entry[1] is reference:
                del entries[number]

        try:
            entries[number] = (next(_numbers), weakref.ref(key, forget), value)
        except TypeError:
            if len(self._unreferred) >= self.MAX_UNREFERRED:
                self._unreferred.clear()
            self._unreferred[number] = (type(key), value)

    def get(self, key: object) -> V | None:
        """Return what was remembered for this very object, or None."""
        entry = self._entries.get(id(key))
        if entry is not None:
            return entry[2] if entry[1]() is key else None
        unreferred = self._unreferred.get(id(key))
        return unreferred[1] if unreferred is not None and unreferred[0] is type(key) else None

    def forget_unreferred(self) -> None:
        """Forget the objects without weak references, when their constructions are no longer recorded."""
        self._unreferred.clear()

    def items(self) -> "list[tuple[int, object, V]]":
        """
        Return the objects that are alive and can be referred to weakly, with their values.

        The first of each is a number of its own, which no later entry has as long as this process lives.
        """
        found: list[tuple[int, object, V]] = []
        for number, reference, value in list(self._entries.values()):
            thing = reference()
            if thing is not None:
                found.append((number, thing, value))
        return found

    def __len__(self) -> int:
        return len(self._entries)


loop_records: IdentityMap[LoopRecord] = IdentityMap()
object_records: IdentityMap[ObjectRecord] = IdentityMap()
