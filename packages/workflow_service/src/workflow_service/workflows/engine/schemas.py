"""JSON Schemas: the one of definitions, and the checks of values by those that definitions have."""

import json
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any
from uuid import UUID

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError
from referencing.exceptions import Unresolvable
from referencing.jsonschema import EMPTY_REGISTRY

from workflow_service.domain.run import JsonObject, Question
from workflow_service.ports import InvalidInputError
from workflow_service.workflows.engine.problems import Problem, did_you_mean
from workflow_service.workflows.engine.source import Json, Path, Source

_logger = logging.getLogger(__name__)

_FORMATS = FormatChecker(["date", "email", "uuid"])
_NOUNS = {
    "object": "an object (keys and values)",
    "array": "a list",
    "string": "a text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "null",
}


@_FORMATS.checks("document-id", raises=ValueError)
def _is_document_id(value: object) -> bool:
    if isinstance(value, str):
        UUID(value)
    return True


def definition_schema() -> JsonObject:
    """Return the JSON Schema of definitions, as it is published."""
    schema: JsonObject = json.loads(
        (files("workflow_service") / "workflows" / "engine" / "definition.schema.json").read_text("utf-8")
    )
    return schema


def structure_problems(source: Source) -> Iterator[Problem]:
    """Yield what in a file does not fit the schema of definitions."""
    for error in _definition_validator().iter_errors(source.value):
        path = tuple(error.absolute_path)
        if error.validator == "additionalProperties":
            known, unknown = _keys(error)
            for key in unknown:
                message = f"unknown key {key!r}{did_you_mean(key, known)}"
                yield source.problem((*path, key), message, at_key=True)
        elif "propertyNames" in error.absolute_schema_path:
            key = error.instance
            yield source.problem((*path, key), f"the name {key!r} {_told(error)}", at_key=True)
        else:
            # What is absent has no place: its parent's key has.
            message = f"{_called(path)} {_told(error)}"
            yield source.problem(path, message, at_key=error.validator == "required")


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """What in a value does not fit its schema. ``place`` is the path to it: "" or ``.people[0].name``."""

    place: str
    message: str

    def told_of(self, what: str) -> str:
        """Return the fault as a line about ``what``."""
        return f"{what}{self.place} {self.message}"


def faults_of(schema: JsonObject, value: Json) -> list[Fault]:
    """Return what in ``value`` does not fit ``schema``, by place; empty if all fits."""
    # A registry of our own: without one jsonschema fetches what a $ref names, from any address.
    validator = Draft202012Validator(schema, format_checker=_FORMATS, registry=EMPTY_REGISTRY)
    return sorted(fault for error in validator.iter_errors(value) for fault in _faults(error))


def check_input(schema: JsonObject, value: JsonObject) -> None:
    """Raise InvalidInputError, with every fault and its place in the request, unless an input fits the schema."""
    faults = faults_of(schema, value)
    if faults:
        text = "; ".join(fault.told_of("input") for fault in faults)
        raise InvalidInputError(text, [(f"input_data{fault.place}", fault.message) for fault in faults])


def check_answers(questions: Iterable[Question], answers: JsonObject) -> None:
    """Raise InvalidInputError, with every fault and its place in the request, unless answers fit their questions.

    A question binds its answer if it is an object with a ``question`` in words and the ``schema`` of the answer.
    One whose schema cannot be used is logged and binds nobody, for its run could never be answered.
    """
    faults = [
        (f"answers.{question.id}{fault.place}", fault.message)
        for question in questions
        if question.id in answers
        for fault in _answer_faults(question, answers[question.id])
    ]
    if faults:
        raise InvalidInputError("; ".join(f"{place} {message}" for place, message in faults), faults)


def _answer_faults(question: Question, answer: Json) -> list[Fault]:
    match question.value:
        case {"question": str(), "schema": dict() as schema}:
            pass
        case _:
            return []
    why: object = None
    if fault := schema_fault(schema):
        why = fault[1]
    else:
        try:
            return faults_of(schema, answer)
        # Those that a look at the schema does not find: what a $ref names is not there or is itself, and
        # patterns of JavaScript that are none here.
        except (Unresolvable, RecursionError, re.error) as error:
            why = error
    _logger.warning("the answer to question %s is not checked: its schema cannot be used: %s", question.id, why)
    return []


def with_defaults(schema: JsonObject, value: Json) -> Json:
    """Return ``value`` with the schema's defaults where it has nothing."""
    if isinstance(value, Mapping):
        properties = schema.get("properties", {})
        filled = {name: each["default"] for name, each in properties.items() if "default" in each} | dict(value)
        return {
            name: with_defaults(properties[name], item) if name in properties else item
            for name, item in filled.items()
        }
    if isinstance(value, list) and "items" in schema:
        return [with_defaults(schema["items"], item) for item in value]
    return value


def schema_fault(schema: Json) -> tuple[Path, str] | None:
    """Return where and why a value is no JSON Schema; None if it is one."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return tuple(error.absolute_path), f"this is no JSON Schema: {_called(error.absolute_path)} {_told(error)}"
    return None


@cache
def _definition_validator() -> Draft202012Validator:
    return Draft202012Validator(definition_schema())


def _faults(error: ValidationError) -> Iterator[Fault]:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    rule: Any = error.validator_value
    if error.validator == "required":  # the place is that of what is missing: a form shows it there
        # jsonschema reports each missing key by itself
        yield from (Fault(f"{place}.{key}", "is missing") for key in rule if f"{key!r} is" in error.message)
    elif error.validator == "additionalProperties":
        known, unknown = _keys(error)
        yield from (Fault(f"{place}.{key}", f"is not known{did_you_mean(key, known)}") for key in unknown)
    else:
        yield Fault(place, _told(error))


def _keys(error: ValidationError) -> tuple[Collection[str], list[str]]:
    """Return the keys that an object may have, and those that it has beside them."""
    schema: Any = error.schema  # Any: jsonschema also has errors without a schema, but none of this kind
    instance: Any = error.instance
    known = schema.get("properties", {})
    return known, sorted(set(instance) - set(known))


def _told(error: ValidationError | SchemaError) -> str:
    """Say in our words what is wrong with a value, for the kinds of faults that people meet."""
    rule: Any = error.validator_value  # Any: the value of a keyword of JSON Schema
    instance: Any = error.instance
    schema: Any = error.schema
    match error.validator:
        case "required":
            missing = ", ".join(repr(key) for key in rule if key not in instance)
            return f"lacks {missing}"
        case "type":
            allowed = " or ".join(_NOUNS[each] for each in _listed(rule))
            return f"must be {allowed}, is {_noun(instance)}"
        case "enum":
            shown = ", ".join(json.dumps(each, ensure_ascii=False) for each in rule)
            text = instance if isinstance(instance, str) else ""
            near = did_you_mean(text, [each for each in rule if isinstance(each, str)]) if text else ""
            return f"must be one of {shown}" + near * near.startswith("; did")
        case "const":
            return f"must be {json.dumps(rule)}"
        case "pattern":
            return str(schema.get("$comment", f"must match {rule}"))
        case "format":
            return f"must be {_FORMAT_NOUNS.get(rule, f'a {rule}')}, is {str(instance)[:60]!r}"
        case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" as word:
            return f"must be {_BOUNDS[word]} {rule}, is {instance}"
        case "minLength" | "minItems" | "minProperties" if rule == 1:
            return "must not be empty"
        case "minLength" | "maxLength":
            bound = "at least" if error.validator == "minLength" else "at most"
            return f"must have {bound} {rule:,} characters, has {len(instance):,}"
        case "minItems" | "maxItems":
            bound = "at least" if error.validator == "minItems" else "at most"
            return f"must have {bound} {rule:,} entries, has {len(instance):,}"
    shown = str(error.message)
    return f"is wrong: {shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + '…'}"


_BOUNDS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
}
_SHOWN = 200  # characters of a message that may quote the whole value
_FORMAT_NOUNS = {
    "date": "a date such as 2026-11-30",
    "email": "an e-mail address",
    "uuid": "a UUID",
    "document-id": "the id of an uploaded document",
}


def _called(path: Iterable[str | int]) -> str:
    names = [f"[{part}]" if isinstance(part, int) else part for part in path]
    return ".".join(names).replace(".[", "[") or "the definition"


def _listed(types: str | list[str]) -> list[str]:
    return [types] if isinstance(types, str) else types


def _noun(value: Json) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return json.dumps(value)
        case str():
            return f"the text {value[:40]!r}"
        case int() | float():
            return f"the number {value}"
        case list():
            return "a list"
        case _:
            return "an object"
