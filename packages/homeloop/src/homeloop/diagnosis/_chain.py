"""An exception, what it came from and what it holds: each with its frames, root causes first."""

from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Any, cast

from homeloop.diagnosis._executing import tell_loops
from homeloop.diagnosis._frames import Frame, walk
from homeloop.diagnosis._reading import kind_name, kinds

MAX_LINKS = 256
"""Exceptions looked at, through causes, contexts and groups. A guess; real chains have about five, groups more."""

_CAUSE = BaseException.__dict__["__cause__"]
_CONTEXT = BaseException.__dict__["__context__"]
_TRACEBACK = BaseException.__dict__["__traceback__"]
_ARGS = BaseException.__dict__["args"]
_MEMBERS = BaseExceptionGroup.__dict__["exceptions"]


@dataclass(slots=True)
class Link:
    """
    One exception of the chain.

    ``depth`` counts the steps from the one that was caught; ``handled`` says that it was being handled when
    the next one was raised, and not named as its cause: it may have been expected.
    """

    error: BaseException
    frames: list[Frame]
    depth: int
    handled: bool = False

    @property
    def last(self) -> Frame | None:
        """The frame that raised."""
        return self.frames[-1] if self.frames else None

    @property
    def name(self) -> str:
        """The class's qualified name."""
        module, name = kind_name(kinds(self.error)[0])
        return name if module == "builtins" else f"{module}.{name}"

    @property
    def message(self) -> str:
        """The first argument, if it is a string; ``str()`` would run the class's own code."""
        args = cast("tuple[object, ...]", _ARGS.__get__(self.error))
        return args[0] if args and type(args[0]) is str else ""

    @property
    def is_plain_runtime_error(self) -> bool:
        """Whether it is a ``RuntimeError`` and of no subclass."""
        return type(self.error) is RuntimeError

    @property
    def after_user(self) -> list[Frame]:
        """The frames below the program's last own one: those of the library that raised, outermost first."""
        for index in range(len(self.frames) - 1, -1, -1):
            if self.frames[index].is_user:
                return self.frames[index + 1 :]
        return self.frames

    def is_kind(self, *names: str) -> bool:
        """Say whether one of the exception's classes has one of these full names."""
        return any(".".join(kind_name(kind)) in names for kind in kinds(self.error))


_Waiting = tuple[BaseException, Link | None, bool]


def unwind(error: BaseException) -> list[Link]:
    """
    Return the chain of an exception, what came first at the front.

    Members of groups take turns with what exceptions came from: neither many of the one nor a long chain of the
    other hides the rest. Cycles and endless chains end it; only the exceptions' own storage is read.
    """
    links: list[Link] = []
    seen: set[int] = {id(error)}
    origins: deque[_Waiting] = deque([(error, None, False)])
    members: deque[_Waiting] = deque()
    while (origins or members) and len(links) < MAX_LINKS:
        first, second = (origins, members) if len(links) % 2 == 0 else (members, origins)
        current, parent, handled = (first or second).popleft()
        link = Link(
            current,
            walk(cast("TracebackType | None", _TRACEBACK.__get__(current))),
            0 if parent is None else parent.depth + 1,
            handled,
        )
        tell_loops(link.frames, _outside(link, parent))
        links.append(link)
        for waiting, found in ((origins, _origins(current)), (members, _members(current))):
            for inner, named in found:
                if id(inner) not in seen:
                    seen.add(id(inner))
                    waiting.append((inner, link, handled or not named))
    links.reverse()
    links.sort(key=lambda link: -link.depth)
    return links


def _origins(error: BaseException) -> list[tuple[BaseException, bool]]:
    """Return what an exception came from, and whether it names it as its cause."""
    found: list[tuple[BaseException, bool]] = []
    for named, descriptor in ((True, _CAUSE), (False, _CONTEXT)):
        inner = descriptor.__get__(error)
        if issubclass(type(inner), BaseException):  # isinstance() would ask the object itself
            found.append((inner, named))
    return found


def _members(error: BaseException) -> list[tuple[BaseException, bool]]:
    """Return the exceptions that a group holds; each is named."""
    if not issubclass(type(error), BaseExceptionGroup):
        return []
    members: Any = _MEMBERS.__get__(error)
    return [(member, True) for member in members[:MAX_LINKS]]


def _outside(link: Link, parent: Link | None) -> Frame | None:
    """Return the frame of the outer exception in which this one was caught."""
    if parent is None or not parent.frames:
        return None
    if link.frames:
        first = link.frames[0].raw
        for frame in parent.frames:
            if frame.raw is first:
                return frame
    return parent.last
