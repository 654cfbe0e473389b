"""The frames of a traceback, each with the loop that ran it."""

import dis
import os
import sys
import sysconfig
from dataclasses import dataclass, field
from types import FrameType, FunctionType, MethodType, TracebackType
from typing import Any, cast

MAX_FRAMES = 200
"""Frames looked at per exception: the outermost and the innermost hundred. A guess; real ones have about fifty."""
_MAX_LOCALS = 100

_GENERATOR = 0x20  # inspect.CO_GENERATOR; what follows are CO_COROUTINE, CO_ITERABLE_COROUTINE, CO_ASYNC_GENERATOR
_ASYNC = 0x80 | 0x100 | 0x200
_OPTIMIZED = 0x01
_RAISING = frozenset(("RAISE_VARARGS", "RERAISE"))
LOOP_MODULES = ("asyncio.base_events", "asyncio.selector_events", "asyncio.unix_events", "asyncio.proactor_events")
_LIBRARIES = tuple(
    {os.path.normcase(path) + os.sep for key in ("stdlib", "platstdlib") if (path := sysconfig.get_path(key))}
)
_PACKAGES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_OWN = ("homeloop",)


class NoLoop:
    """Stands for the loop of a frame that certainly runs on none."""


NO_LOOP = NoLoop()


@dataclass(slots=True)
class Frame:
    """
    One frame of a traceback.

    ``loop`` is the loop that ran it, ``NO_LOOP``, or None where that cannot be told; ``harness`` says that a
    test tool started that loop.
    """

    raw: FrameType
    line: int
    lasti: int
    loop: Any = None
    harness: bool = False
    runner: "Frame | None" = None
    _locals: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def module(self) -> str:
        """The module's name; for Cython's frames what the file's name tells."""
        name = self.raw.f_globals.get("__name__")
        if type(name) is str and not self.native:
            return name
        return self.file.replace(os.sep, "/").removesuffix(".pyx").replace("/", ".")

    @property
    def native(self) -> bool:
        """Whether this frame was made up by Cython, which shows no variables."""
        return self.file.endswith(".pyx")

    @property
    def function(self) -> str:
        """The function's bare name."""
        return self.raw.f_code.co_name.rpartition(".")[2]

    @property
    def file(self) -> str:
        return self.raw.f_code.co_filename

    @property
    def is_async(self) -> bool:
        """Whether it is a coroutine's or an async generator's."""
        return bool(self.raw.f_code.co_flags & _ASYNC)

    @property
    def is_async_generator(self) -> bool:
        return bool(self.raw.f_code.co_flags & 0x200)

    @property
    def may_await(self) -> bool:
        """Whether it is one, or a generator, such as an ``__await__``."""
        return bool(self.raw.f_code.co_flags & (_ASYNC | _GENERATOR))

    @property
    def is_standard(self) -> bool:
        """Whether it is the standard library's."""
        file = os.path.normcase(self.file)
        return (file.startswith(_LIBRARIES) and not self.is_package) or file.startswith("<frozen")

    @property
    def is_package(self) -> bool:
        """Whether it is an installed package's, or ours."""
        return self.native or any(part in self.file for part in _PACKAGES) or self.top in _OWN

    @property
    def is_user(self) -> bool:
        """Whether it is the program's own."""
        return not self.is_standard and not self.is_package

    @property
    def top(self) -> str:
        """The top-level package's name."""
        return self.module.partition(".")[0]

    @property
    def opcode(self) -> str:
        """The instruction that raised, or through which the exception came."""
        code = self.raw.f_code.co_code
        return dis.opname[code[self.lasti]] if 0 <= self.lasti < len(code) else ""

    @property
    def raised_here(self) -> bool:
        """Whether a ``raise`` statement of this frame raised; not so for what C code raised or a loop threw in."""
        return self.opcode in _RAISING

    @property
    def awaiting(self) -> bool:
        """Whether the exception came in where the frame awaited."""
        return self.may_await and self.opcode in (
            "SEND",
            "YIELD_VALUE",
            "RESUME",
            "YIELD_FROM",
            "JUMP_BACKWARD_NO_INTERRUPT",
        )

    def called_names(self) -> frozenset[str]:
        """Return the names loaded within the source span of the failing instruction."""
        if not self.opcode.startswith(("CALL", "PRECALL")):
            return frozenset()
        spans = list(self.raw.f_code.co_positions())
        index = self.lasti // 2
        if not 0 <= index < len(spans):
            return frozenset()
        line, end_line, column, end_column = spans[index]
        if line is None or column is None or end_line is None or end_column is None:
            return frozenset()
        names: set[str] = set()
        for instruction in dis.get_instructions(self.raw.f_code):
            at = instruction.positions
            if (
                at is not None
                and instruction.opname.startswith("LOAD_")
                and isinstance(instruction.argval, str)
                and (at.lineno or 0, at.col_offset or 0) >= (line, column)
                and (at.end_lineno or 0, at.end_col_offset or 0) <= (end_line, end_column)
            ):
                names.add(instruction.argval)
        return frozenset(names)

    @property
    def variables(self) -> dict[str, Any]:
        """The local variables, or the first hundred of them."""
        if self._locals is None:
            self._locals = _read_variables(self.raw)
        return self._locals

    @property
    def owner(self) -> Any:
        """What ``self`` is in this frame."""
        return self.variables.get("self")


def _read_variables(frame: FrameType) -> dict[str, Any]:
    # Up to 3.12 a frame keeps the dictionary that it makes here, and with it every value of this moment: an
    # exception that is being handled would hold itself. So it is emptied again, unless somebody else has it
    # too (locals() gives the same one), or it is no copy but the namespace of a module or a class.
    variables: Any = frame.f_locals
    try:
        taken = dict(zip(variables.keys(), variables.values(), strict=False))
    except RuntimeError:
        return {}  # it changes on another thread
    # Inside a debugger's hook it stays: the interpreter is about to copy it back into the frame.
    debugged = type(sys.gettrace()) in (FunctionType, MethodType)
    is_copy = type(cast("object", variables)) is dict and frame.f_code.co_flags & _OPTIMIZED
    if is_copy and not debugged and _unshared(variables):
        variables.clear()
    return dict(list(taken.items())[:_MAX_LOCALS]) if len(taken) > _MAX_LOCALS else taken


def _unshared(variables: object) -> bool:
    # The frame, the caller's variable, our argument, and getrefcount's.
    return sys.getrefcount(variables) <= 4


def walk(traceback: TracebackType | None) -> list[Frame]:
    """Return a traceback's frames, outermost first; of a long one the two ends."""
    first: list[Frame] = []
    last: list[Frame] = []
    half = MAX_FRAMES // 2
    while traceback is not None:
        frame = Frame(traceback.tb_frame, traceback.tb_lineno, traceback.tb_lasti)
        if len(first) < half:
            first.append(frame)
        else:
            last.append(frame)
            if len(last) > half:
                del last[0]
        traceback = traceback.tb_next
    return first + last
