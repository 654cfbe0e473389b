"""
Expressions: ``${{ … }}`` with JMESPath inside, in texts and as whole values.

A text that is one expression becomes the expression's value, of whatever type; within a longer text the value is
written out: a text as it is, null as nothing, everything else as JSON. ``$${{`` stands for ``${{`` itself.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.parser import ParsedResult

from workflow_service.workflows.engine.interpreter import ExpressionError, Functions, Interpreter, check_size
from workflow_service.workflows.engine.problems import did_you_mean
from workflow_service.workflows.engine.source import Json

MAX_CHARACTERS = 4_000
"""Characters of one expression."""
_OPEN, _CLOSE, _ESCAPE = "${{", "}}", "$"


@dataclass(frozen=True, slots=True)
class Expression:
    """A JMESPath expression over ``input``, ``steps`` and ``constants``."""

    text: str
    _compiled: ParsedResult

    @classmethod
    def parse(cls, text: str) -> "Expression":
        """Read an expression. Raises ExpressionError if it is no JMESPath, or too long."""
        text = text.strip()
        if not text:
            raise ExpressionError("the expression is empty; write for instance ${{ input.location }}")
        if len(text) > MAX_CHARACTERS:
            raise ExpressionError(f"the expression has {len(text):,} characters; at most {MAX_CHARACTERS:,}")
        try:
            compiled = jmespath.compile(text)
            calls = list(_calls(compiled.parsed))
        except (JMESPathError, ValueError) as error:
            raise ExpressionError(f"this is no JMESPath ({_first_line(error)})", text) from None
        except RecursionError:
            raise ExpressionError("the expression is nested too deep", text) from None
        for name, arguments in calls:
            _check_call(name, arguments, text)
        return cls(text, compiled)

    def __str__(self) -> str:
        return f"{_OPEN} {self.text} {_CLOSE}"

    def value(self, names: Mapping[str, Json]) -> Json:
        """Work the expression out. Raises ExpressionError, for instance if a function gets the wrong type."""
        try:
            return Interpreter().visit(self._compiled.parsed, names)
        except ExpressionError:
            raise
        except (JMESPathError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise ExpressionError(_first_line(error), self.text) from None

    def references(self) -> frozenset[tuple[str, ...]]:
        """Return what is read from the top: ``steps.a.data[0].b`` gives ("steps", "a", "data")."""
        reads, _ = _walk(self._compiled.parsed)
        return frozenset(reads)


@dataclass(frozen=True, slots=True)
class Template:
    """A JSON value in which texts may hold expressions."""

    _render: Callable[[Mapping[str, Json]], Json]
    source: Json
    expressions: tuple[Expression, ...]

    @classmethod
    def parse(cls, value: Json) -> "Template":
        """Read a value. Raises ExpressionError for the first expression that is wrong."""
        expressions: list[Expression] = []
        return cls(_compile(value, expressions), value, tuple(expressions))

    def value(self, names: Mapping[str, Json]) -> Json:
        """
        Work the value out.

        Raises:
            ExpressionError: An expression cannot be worked out, or the value would be too large.
        """
        value = self._render(names)
        check_size(value)
        return value

    def references(self) -> frozenset[tuple[str, ...]]:
        """Return what its expressions read, as `Expression.references` does."""
        return frozenset(path for expression in self.expressions for path in expression.references())


def split(text: str) -> list[str | Expression]:
    """
    Split a text into plain parts and expressions.

    Raises:
        ExpressionError: An expression is not closed, or is wrong.
    """
    return [Expression.parse(part) if is_expression else part for is_expression, part in pieces(text)]


def pieces(text: str) -> list[tuple[bool, str]]:
    """
    Return the parts of a text, each with whether it is an expression, which is not read yet.

    Raises:
        ExpressionError: An expression is not closed.
    """
    parts: list[tuple[bool, str]] = []
    plain, position = "", 0
    while (start := text.find(_OPEN, position)) >= 0:
        if text[start - 1 : start] == _ESCAPE and start > position:
            plain += text[position : start - 1] + _OPEN
            position = start + len(_OPEN)
            continue
        plain += text[position:start]
        end = _end(text, start + len(_OPEN))
        if plain:
            parts.append((False, plain))
        parts.append((True, text[start + len(_OPEN) : end]))
        plain, position = "", end + len(_CLOSE)
    plain += text[position:]
    if plain:
        parts.append((False, plain))
    return parts


def _compile(value: Json, expressions: list[Expression]) -> Callable[[Mapping[str, Json]], Json]:
    if isinstance(value, str):
        return _compile_text(split(value), expressions)
    if isinstance(value, Mapping):
        members = {key: _compile(item, expressions) for key, item in value.items()}
        return lambda names: {key: render(names) for key, render in members.items()}
    if isinstance(value, list):
        items = [_compile(item, expressions) for item in value]
        return lambda names: [render(names) for render in items]
    return lambda _names: value


def _compile_text(
    parts: list[str | Expression], expressions: list[Expression]
) -> Callable[[Mapping[str, Json]], Json]:
    found = [part for part in parts if isinstance(part, Expression)]
    expressions.extend(found)
    if len(parts) == 1 and found:
        return found[0].value
    if not found:
        text = "".join(part for part in parts if isinstance(part, str))
        return lambda _names: text
    return lambda names: "".join(
        written(part.value(names)) if isinstance(part, Expression) else part for part in parts
    )


def written(value: Json) -> str:
    """Return a value as it stands within a longer text. Raises ExpressionError if it is too large."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    check_size(value)  # before its text is made
    return json.dumps(value, ensure_ascii=False)


def _end(text: str, start: int) -> int:
    """Return where the ``}}`` of an expression stands: outside of quotes and of the expression's own braces."""
    depth, position = 0, start
    while position < len(text):
        character = text[position]
        if character in "'\"`":
            position = _after_quoted(text, position)
            continue
        if character == "{":
            depth += 1
        elif character == "}":
            if depth == 0 and text.startswith(_CLOSE, position):
                return position
            depth -= 1
        position += 1
    raise ExpressionError("the expression is not closed; write }} after it", text[start - 3 : start + 57])


def _after_quoted(text: str, start: int) -> int:
    position = start + 1
    while position < len(text):
        if text[position] == "\\":
            position += 1
        elif text[position] == text[start]:
            return position + 1
        position += 1
    raise ExpressionError(f"a {text[start]} is not closed", text[start : start + 60])


def _calls(node: Mapping[str, Any]) -> Iterator[tuple[str, int]]:  # Any: a node of jmespath's tree
    if node["type"] == "function_expression":
        yield node["value"], len(node["children"])
    for child in node["children"]:
        if isinstance(child, Mapping):
            yield from _calls(child)


def _check_call(name: str, arguments: int, text: str) -> None:
    known = Functions.FUNCTION_TABLE
    if name not in known:
        raise ExpressionError(f"there is no function {name}(){did_you_mean(name, known)}", text)
    signature = known[name]["signature"]
    is_variadic = bool(signature) and signature[-1].get("variadic", False)
    if arguments < len(signature) or (arguments > len(signature) and not is_variadic):
        at_least = "at least " if is_variadic else ""
        raise ExpressionError(f"{name}() takes {at_least}{len(signature)} arguments, here are {arguments}", text)


_Reads = set[tuple[str, ...]]


def _walk(node: Mapping[str, Any]) -> tuple[_Reads, tuple[str, ...] | None]:  # Any: a node of jmespath's tree
    """Return what a node reads from the top, and the path it stands for itself; None if it is no plain path."""
    kind, children = node["type"], node["children"]
    if kind == "field":
        return {(node["value"],)}, (node["value"],)
    if kind in ("current", "identity"):
        return {()}, ()
    if kind in ("literal", "expref", "index", "slice"):
        return set(), None
    if kind in ("subexpression", "pipe", "index_expression"):
        return _walk_chain(children)
    if kind in ("projection", "value_projection", "filter_projection"):
        return _walk(children[0])[0], None  # the rest sees the elements, not the top
    return {path for child in children for path in _walk(child)[0]}, None


def _walk_chain(children: list[Mapping[str, Any]]) -> tuple[_Reads, tuple[str, ...] | None]:
    """Walk nodes of which each sees the value of the one before."""
    reads, path = _walk(children[0])
    for child in children[1:]:
        if path is None:
            break
        if child["type"] == "field":
            reads.discard(path)
            path = (*path, child["value"])
            reads.add(path)
        else:
            path = _beyond(child, path, reads)
    return reads, path


def _beyond(node: Mapping[str, Any], path: tuple[str, ...], reads: _Reads) -> tuple[str, ...] | None:
    """Add what a node reads of the value at ``path``; return the path it stands for, None if it is none."""
    further, reached = _walk(node)
    if further:
        reads.discard(path)
        reads.update((*path, *each) for each in further)
    return None if reached is None else (*path, *reached)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
