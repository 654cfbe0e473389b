"""What a rule finds."""

import ast
from dataclasses import dataclass
from pathlib import Path

from homeloop.cli._check._source import Module, Scope


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in a file; lines and columns are counted from 1, ``end_column`` is the first one after it."""

    path: Path
    line: int
    column: int
    end_line: int
    end_column: int
    source: str

    @classmethod
    def of(cls, module: Module, node: ast.AST) -> "Spot":
        """Return the place of a node; of a function, that of its first line."""
        line, end_line = getattr(node, "lineno", 1), getattr(node, "end_lineno", None) or 1
        source = module.lines[line - 1] if line <= len(module.lines) else ""
        column, end = _character(source, getattr(node, "col_offset", 0)), len(source) + 1
        if end_line == line:
            end = _character(source, getattr(node, "end_col_offset", None) or 0)
        else:
            end_line = line
        return cls(module.path, line, column, end_line, end, source)


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule's code, where it is broken, why, and the places that belong to it."""

    code: str
    spot: Spot
    message: str
    related: tuple[tuple[Spot, str], ...] = ()


def found(code: str, scope: Scope, node: ast.AST, message: str, *related: tuple[Scope, ast.AST, str]) -> Finding:
    """Return a finding at a node."""
    others = tuple((Spot.of(at.module, other), text) for at, other, text in related)
    return Finding(code, Spot.of(scope.module, node), message, others)


def _character(source: str, offset: int) -> int:
    """Return the column, in characters from 1, of an offset in bytes of UTF-8."""
    return len(source.encode()[:offset].decode("utf-8", "replace")) + 1
