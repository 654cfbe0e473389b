"""The text of a definition as JSON values that know their place in the file."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from workflow_service.workflows.engine.problems import DefinitionError, Problem

MAX_CHARACTERS = 256 * 1024
MAX_VALUES = 20_000
"""Values in a file, each alias counted with all that stands behind it."""
MAX_DEPTH = 40
"""Levels of nesting: libraries that read what we read recurse."""

Path = tuple[str | int, ...]
"""Keys and indexes from the top of the file to a value."""

Json = Any  # JSON as Python has it: every module that reads it checks what it finds

_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_A_NUMBER = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


class _Loader(yaml.SafeLoader):
    """Reads YAML 1.2's core types only: ``no`` is a text, and so is 2026-11-30."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as the base has it


def _resolve(tag: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(_TAG + tag, re.compile(pattern), list(first))


_resolve("null", r"(?:~|null|Null|NULL|)\Z", "~nN\0")
_Loader.yaml_implicit_resolvers.setdefault("", []).append((_TAG + "null", re.compile(r"\Z")))
_resolve("bool", r"(?:true|True|TRUE|false|False|FALSE)\Z", "tTfF")
_resolve("int", rf"(?:{_INTEGER.pattern})\Z", "-+0123456789")
_resolve("float", rf"(?:{_FLOAT.pattern}|{_NOT_A_NUMBER.pattern})\Z", "-+.0123456789")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value stands: offsets into the text, and the line and column of its begin, from 0."""

    start: int
    end: int
    line: int
    column: int


class Source:
    """A definition's text and its value; names places by the path to them.

    Args:
        text: YAML, or JSON.
        file: What to call the file in messages.

    Raises:
        DefinitionError: The text is too large, is no YAML, or holds what JSON does not have.
    """

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        # JSON may be indented by tabs; YAML may not. A tab within a text of JSON is written \\t.
        self._text = text.replace("\t", " ") if file.endswith(".json") else text
        self._values: dict[Path, _Place] = {}
        self._keys: dict[Path, _Place] = {}
        self._count = 0
        if len(text) > MAX_CHARACTERS:
            raise self._fault(None, f"the file has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read")
        self.value: Json = self._read(self._compose(), (), 0)

    def problem(self, path: Path, message: str, *, at_key: bool = False, text: str = "") -> Problem:
        """Return a problem of the value at ``path``, or of its key.

        A path that the file does not have means the nearest value around it. With ``text``, the place is where
        that text stands within the value.
        """
        places = self._keys if at_key and path in self._keys else self._values
        while path not in places and path:
            path, places = path[:-1], self._values
        place = places.get(path)
        if place is None:
            return Problem(self.file, 1, 1, message)
        line, column = place.line, place.column
        found = self._text.find(text, place.start, place.end) if text else -1
        if found >= 0:
            before = self._text[place.start : found]
            line += before.count("\n")
            column = found - self._text.rfind("\n", 0, found) - 1
        return Problem(self.file, line + 1, column + 1, message)

    def _compose(self) -> yaml.Node:
        try:
            node: yaml.Node | None = yaml.compose(self._text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            reason = ", ".join(filter(None, (error.context, error.problem)))
            raise self._fault(mark, f"this is no YAML: {reason}") from None
        except yaml.reader.ReaderError as error:
            character = error.character if isinstance(error.character, int) else ord(error.character[:1] or b"\0")
            before = self._text[: error.position]
            line, column = before.count("\n"), len(before) - before.rfind("\n") - 1
            message = f"the character U+{character:04X} is not allowed; write an escape"
            raise self._fault((line, column), message) from None
        except RecursionError:
            raise self._fault(None, f"values are nested deeper than {MAX_DEPTH} levels") from None
        if node is None:
            raise self._fault(None, "the file is empty; the reference shows what a definition has")
        return node

    def _fault(self, mark: "yaml.Mark | tuple[int, int] | None", message: str) -> DefinitionError:
        line, column = mark if isinstance(mark, tuple) else (mark.line, mark.column) if mark else (0, 0)
        return DefinitionError([Problem(self.file, line + 1, column + 1, message)])

    def _read(self, node: yaml.Node, path: Path, depth: int) -> Json:
        self._count += 1
        if self._count > MAX_VALUES:
            raise self._fault(node.start_mark, f"with its aliases the file has more than {MAX_VALUES:,} values")
        if depth > MAX_DEPTH:
            message = f"values are nested deeper than {MAX_DEPTH} levels, or an alias holds itself"
            raise self._fault(node.start_mark, message)
        self._values[path] = _place(node)
        tag = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode) and tag == "map":
            return self._read_mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode) and tag == "seq":
            return [self._read(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and tag in _SCALARS:
            return self._read_scalar(node, tag)
        raise self._fault(node.start_mark, f"the tag {node.tag!r} is not allowed; write plain values")

    def _read_mapping(self, node: yaml.MappingNode, path: Path, depth: int) -> dict[str, Json]:
        read: dict[str, Json] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _TAG + "str":
                raise self._fault(key_node.start_mark, "a key must be a text; put it in quotes")
            key = self._read_text(key_node)
            if key == "<<":
                raise self._fault(key_node.start_mark, "merge keys are not supported; write the keys out")
            inner = (*path, key)
            if key in read:
                first = self._keys[inner].line + 1
                raise self._fault(
                    key_node.start_mark, f"the key {key!r} stands here a second time, after line {first}"
                )
            self._keys[inner] = _place(key_node)
            read[key] = self._read(value_node, inner, depth + 1)
        return read

    def _read_scalar(self, node: yaml.ScalarNode, tag: str) -> Json:
        text: str = node.value
        if tag == "str":
            return self._read_text(node)
        if tag == "null":
            return None
        if tag == "bool":
            return text.lower() == "true"
        if tag == "int" and _INTEGER.fullmatch(text) and len(text) <= _DIGITS:
            return int(text)
        if tag == "float" and _FLOAT.fullmatch(text):
            number = float(text)
            if number not in (float("inf"), float("-inf")):
                return number
        message = f"{text[:40]!r} is no number that JSON has; put it in quotes if it is a text"
        raise self._fault(node.start_mark, message)

    def _read_text(self, node: yaml.ScalarNode) -> str:
        text: str = node.value
        if not text.isascii():
            try:  # JSON writes a character beyond U+FFFF as two escapes
                text = text.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                message = "the text holds half of a surrogate pair, which is no Unicode text"
                raise self._fault(node.start_mark, message) from None
        if "\0" in text:
            raise self._fault(node.start_mark, "the text holds a NUL character, which cannot be stored")
        return text


_SCALARS = ("str", "null", "bool", "int", "float")
_DIGITS = 300  # Python itself refuses to read numbers of more than 4,300 digits


def _place(node: yaml.Node) -> _Place:
    start, end = node.start_mark, node.end_mark
    return _Place(start.index, end.index, start.line, start.column)


def texts(value: Json, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield every text in a JSON value, with the path to it; keys are no texts."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from texts(item, (*path, index))


def canonical(value: Json) -> bytes:
    """Return the one JSON text of a value, to compare and to hash."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
