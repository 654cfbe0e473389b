"""
Works out JMESPath with a bound: 4,000 characters are enough to ask for more than a machine has.

A value that doubles forty times is one expression long. Each node visited, and what functions and comparisons go
through, is counted; what is beyond the bound is an error of the step, and not the end of the worker.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import jmespath
from jmespath import functions
from jmespath.visitor import TreeInterpreter

from workflow_service.workflows.engine.source import Json

MAX_VALUES = 100_000
MAX_TEXT = 2_000_000
"""Values, and characters of all texts, in what is made of expressions."""

MAX_DEPTH = 200
"""Levels of nesting in it."""

MAX_WORK = 3_000_000
"""Elements flattened, characters made and values compared by one expression, and nodes visited: seconds."""

_VISIT = 3  # what a node counts: it takes so much longer than a character


class ExpressionError(ValueError):
    """An expression is wrong, or cannot be worked out on these values. ``text`` is the expression."""

    def __init__(self, message: str, text: str = "") -> None:
        super().__init__(message, text)
        self.message, self.text = message, text

    def __str__(self) -> str:
        return f"{self.message} in {self.text!r}" if self.text else self.message


class _Work:
    """What working an expression out may still cost."""

    def __init__(self) -> None:
        self._left = MAX_WORK

    def spend(self, amount: int) -> None:
        """Take from what is left. Raises ExpressionError if that is too little."""
        self._left -= amount
        if self._left < 0:
            raise ExpressionError(f"the expression takes too long: more than {MAX_WORK:,} steps")


class Functions(functions.Functions):
    """JMESPath's functions, and ours."""

    def __init__(self, work: _Work) -> None:
        self._work = work

    def call_function(self, function_name: str, resolved_args: Iterable[Any]) -> Any:
        arguments = list(resolved_args)
        self._work.spend(_cost_of_calling(function_name, arguments))
        return super().call_function(function_name, arguments)

    @functions.signature({"types": ["object", "null"]}, {"types": ["string", "null"]})
    def _func_lookup(self, table: Mapping[str, Any] | None, key: str | None) -> Any:  # Any: JSON
        """``lookup(table, key)``: the value under a key that is worked out itself; null if there is none."""
        return None if table is None or key is None else table.get(key)

    @functions.signature({"types": []}, {"types": ["string"]})
    def _func_require(self, value: Any, reason: str) -> Any:
        """``require(value, 'reason')``: the value; what counts as false fails the step with the reason."""
        if is_truth(value):
            return value
        raise ExpressionError(reason)


class Interpreter(TreeInterpreter):
    """Works out one expression once, with bounded work."""

    def __init__(self) -> None:
        self._work = _Work()
        super().__init__(jmespath.Options(custom_functions=Functions(self._work)))

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:  # Any: a node of jmespath's tree, and JSON
        self._work.spend(_VISIT)
        return super().visit(node, *args, **kwargs)

    def visit_flatten(self, node: Any, value: Any) -> Any:
        base = self.visit(node["children"][0], value)
        if isinstance(base, list):
            self._work.spend(sum(len(each) if isinstance(each, list) else 1 for each in base))
        return super().visit_flatten(_on_values(node, base), value)

    def visit_comparator(self, node: Any, value: Any) -> Any:
        left, right = (self.visit(child, value) for child in node["children"])
        self._work.spend(_cost_of_comparing(left, right))
        return super().visit_comparator(_on_values(node, left, right), value)


def _on_values(node: Any, *values: Json) -> Any:  # Any: a node of jmespath's tree
    """Return the node with its children worked out."""
    return {**node, "children": [{"type": "literal", "value": value, "children": []} for value in values]}


def _cost_of_calling(name: str, arguments: list[Any]) -> int:
    """Return what a call costs; arguments of wrong types cost something, too, before the function refuses them."""
    match name, arguments:
        case "join", [str(separator), [*texts]]:
            return sum(len(separator) + len(text) for text in texts if isinstance(text, str))
        case "to_string", [list() | dict() as value]:
            return check_size(value)
        case "contains", [subject, search]:
            return _cost_of_comparing(subject, search)
    return sum(len(each) for each in arguments if isinstance(each, list | Mapping))


def _cost_of_comparing(left: Any, right: Any) -> int:
    """Return what comparing costs: only two values that hold others are looked into."""
    if isinstance(left, list | Mapping) and isinstance(right, list | Mapping):
        return check_size(left) + check_size(right)
    return 1


def is_truth(value: Json) -> bool:
    """Return what JMESPath takes a value for: false, null and what is empty are false, every number is true."""
    return not (value is None or value is False or (isinstance(value, str | list | Mapping) and not value))


def check_size(value: Json) -> int:
    """
    Return how large a value is, its values and characters; what is shared within it counts each time.

    Raises:
        ExpressionError: It is too large to be kept, nested too deep, or holds a number that JSON does not have.
    """
    values = characters = 0
    rest: list[tuple[Json, int]] = [(value, 0)]
    while rest:
        each, depth = rest.pop()
        values += 1
        if isinstance(each, str):
            characters += len(each)
        elif isinstance(each, float) and not math.isfinite(each):
            raise ExpressionError(f"the value holds {each}, which is no JSON number")
        elif isinstance(each, Mapping):
            characters += sum(map(len, each))
            rest.extend((item, depth + 1) for item in each.values())
        elif isinstance(each, list):
            rest.extend((item, depth + 1) for item in each)
        if depth > MAX_DEPTH:
            raise ExpressionError(f"the value is nested deeper than {MAX_DEPTH} levels")
        if values + len(rest) > MAX_VALUES or characters > MAX_TEXT:
            raise ExpressionError(
                f"the value is too large: at most {MAX_VALUES:,} values and {MAX_TEXT:,} characters are kept"
            )
    return values + characters
