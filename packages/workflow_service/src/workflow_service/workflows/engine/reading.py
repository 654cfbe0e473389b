"""Reads a definition: its structure by the schema, its meaning by the checks here."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import TypeAlias

from workflow_service.domain.run import JsonObject
from workflow_service.workflows.engine.definition import (
    Body,
    Definition,
    ModelCall,
    Retry,
    ServiceCall,
    Step,
    Transform,
)
from workflow_service.workflows.engine.expressions import Expression, Template, pieces
from workflow_service.workflows.engine.interpreter import ExpressionError
from workflow_service.workflows.engine.outcome import OUTCOME_FIELDS
from workflow_service.workflows.engine.problems import DefinitionError, Problem, did_you_mean
from workflow_service.workflows.engine.schemas import faults_of, schema_fault, structure_problems
from workflow_service.workflows.engine.source import Json, Path, Source, canonical, texts

_TIMEOUT = 60.0  # seconds: longer than services take, shorter than people wait
_MAX_PARALLEL = 8
_Reads: TypeAlias = set[tuple[str, ...]]
"""Paths from the top: ("steps", "weather", "data")."""
_NOTHING: Template = Template.parse(None)
_STATIC = ("type", "service", "operation", "description", "needs", "schema", "timeout", "retry", "cache_ttl")
"""Keys of a step whose texts are taken as they are."""
_WITHOUT_EFFECT = ("description", "needs", "timeout", "retry", "cache_ttl")
"""Keys of a step that do not change what it gives."""


def read_definition(text: str, file: str) -> Definition:
    """
    Read and check a definition.

    Args:
        text: YAML, or JSON.
        file: What to call the file in messages.

    Raises:
        DefinitionError: It cannot be used; ``problems`` has every fault that can be told at once.
    """
    source = Source(text, file)
    _refuse(structure_problems(source))
    return _Reading(source).definition()


def _refuse(problems: Iterator[Problem] | list[Problem]) -> None:
    found = list(problems)
    if found:
        raise DefinitionError(found)


@dataclass
class _Reading:
    """One reading of a file whose structure is right."""

    source: Source
    problems: list[Problem] = field(default_factory=list)

    def definition(self) -> Definition:
        top: Mapping[str, Json] = self.source.value
        schema = {"type": "object", "additionalProperties": False, **top.get("input", {})}
        self._check_input(schema, ("input",))
        self._refuse_expressions("constants", top.get("constants", {}))
        reads = {name: self._read_step(name, step) for name, step in top["steps"].items()}
        self._read_texts(("output",), top["output"])
        self._check_output(top["output"])
        order = self._order({name: _steps_of(each) for name, each in reads.items()})
        _refuse(self.problems)
        steps: dict[str, Step] = {}
        for name in order:
            steps[name] = self._step(name, top["steps"][name], reads[name], steps)
        return Definition(
            name=top["name"],
            description=top["description"],
            input_schema=schema,
            constants=top.get("constants", {}),
            max_parallel=top.get("max_parallel", _MAX_PARALLEL),
            steps=steps,
            output=Template.parse(top["output"]),
            source=self.source,
        )

    def _add(self, path: Path, message: str, *, at_key: bool = False, text: str = "") -> None:
        self.problems.append(self.source.problem(path, message, at_key=at_key, text=text))

    def _check_input(self, schema: JsonObject, path: Path) -> None:
        properties: Mapping[str, JsonObject] = schema.get("properties", {})
        for index, name in enumerate(schema.get("required", ())):
            if name not in properties and not schema.get("additionalProperties"):
                message = f"there is no property {name!r}{did_you_mean(name, properties)}"
                self._add((*path, "required", index), message)
        if "default" in schema:
            for fault in faults_of(schema, schema["default"]):
                self._add((*path, "default"), fault.told_of("this default"))
        for name, each in properties.items():
            self._check_input(each, (*path, "properties", name))
        if "items" in schema:
            self._check_input(schema["items"], (*path, "items"))

    def _refuse_expressions(self, what: str, value: Json, path: Path = ()) -> None:
        path = path or (what,)
        for inner, text in texts(value):
            if "${{" in text:
                self._add((*path, *inner), f"{what} takes no expressions; write the value itself", text="${{")

    def _read_step(self, name: str, step: Mapping[str, Json]) -> _Reads:
        """Check a step's expressions and return what it reads; steps that it only names are read, too."""
        path: Path = ("steps", name)
        reads: _Reads = set()
        for key, value in step.items():
            if key in _STATIC:
                self._refuse_expressions(key, value, (*path, key))
            else:
                reads |= self._read_texts((*path, key), value, own=name)
        for index, needed in enumerate(step.get("needs", ())):
            fault = self._step_fault(needed, own=name)
            if fault:
                self._add((*path, "needs", index), fault)
            else:
                reads.add(("steps", needed))
        when = step.get("when")
        if isinstance(when, str) and not _is_one_expression(when):
            self._add((*path, "when"), "when must be one expression, such as ${{ steps.weather.success }}")
        if "schema" in step:
            wrong = schema_fault(step["schema"])
            if wrong:
                self._add((*path, "schema", *wrong[0]), wrong[1])
        return reads

    def _read_texts(self, path: Path, value: Json, own: str | None = None) -> _Reads:
        reads: _Reads = set()
        for inner, text in texts(value, path):
            try:
                parts = [part for is_expression, part in pieces(text) if is_expression]
            except ExpressionError as error:
                self._add(inner, str(error), text=error.text)
                continue
            for part in parts:
                try:
                    reads |= self._read_expression(inner, Expression.parse(part), own)
                except ExpressionError as error:
                    self._add(inner, str(error), text=error.text or part)
        return reads

    def _read_expression(self, path: Path, expression: Expression, own: str | None) -> _Reads:
        reads: _Reads = set()
        for reference in sorted(expression.references()):
            fault = self._reference_fault(reference, own)
            if fault:
                self._add(path, f"{fault}, in {expression.text!r}", text=expression.text)
            else:
                reads.add(reference)
        return reads

    def _reference_fault(self, reference: tuple[str, ...], own: str | None) -> str | None:
        match reference:
            case ():
                return "@ stands for everything here; name what is meant: input.…, constants.… or steps.NAME.…"
            case ("input", *path):
                return _schema_path_fault("input", path, self.source.value.get("input", {}))
            case ("constants", *path):
                return _value_path_fault("constants", path, self.source.value.get("constants", {}))
            case ("steps",):
                return "name a step: steps.NAME (and after ! write it in parentheses: !(steps.NAME.success))"
            case ("steps", name):
                return self._step_fault(name, own)
            case ("steps", name, part, *_):
                if part not in OUTCOME_FIELDS:
                    return f"steps.{name} has no {part!r}{did_you_mean(part, OUTCOME_FIELDS)}"
                return self._step_fault(name, own)
        names = ("input", "constants", "steps")
        return f"there is no {reference[0]!r}{did_you_mean(reference[0], names)}"

    def _step_fault(self, name: str, own: str | None) -> str | None:
        if name == own:
            return f"the step {name!r} cannot need itself"
        known = self.source.value["steps"]
        return None if name in known else f"there is no step {name!r}{did_you_mean(name, known)}"

    def _fixed(self, reads: _Reads) -> list[Json]:
        """Return what of the definition, beside other steps, decides on what is read: constants, defaults."""
        places = {"input": self.source.value.get("input", {}).get("properties", {})}
        places["constants"] = self.source.value.get("constants", {})
        found: list[Json] = []
        for root, *path in sorted(reads):
            if root in places:
                found.append([root, places[root].get(path[0]) if path else places[root]])
        return found

    def _check_output(self, output: Json) -> None:
        if isinstance(output, str) and not _is_one_expression(output):
            self._add(("output",), "output must be an object, or one expression that gives an object")

    def _order(self, needs: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
        try:
            return tuple(TopologicalSorter(needs).static_order())
        except CycleError as error:
            cycle: list[str] = error.args[1][::-1]  # each needs the next
            first = next(name for name in needs if name in cycle)
            start = cycle.index(first)
            told = " → ".join([*cycle[start:-1], *cycle[:start], first])
            self._add(("steps", first), f"steps wait for each other: {told}", at_key=True)
            return ()

    def _step(self, name: str, step: Mapping[str, Json], reads: _Reads, before: Mapping[str, Step]) -> Step:
        on_error = step.get("on_error", "fail")
        default = Template.parse(on_error["default"]) if isinstance(on_error, Mapping) else _NOTHING
        when = Template.parse(step["when"]) if "when" in step else None
        needs = _steps_of(reads)
        effect = {key: value for key, value in step.items() if key not in _WITHOUT_EFFECT}
        fingerprints = sorted(before[need].fingerprint for need in needs)
        said = canonical([name, effect, self._fixed(reads), fingerprints])
        return Step(
            name=name,
            body=_body(step),
            needs=needs,
            when=when,
            timeout=step.get("timeout", _TIMEOUT),
            retry=Retry(**step.get("retry", {})),
            is_fatal=on_error == "fail",
            default=default,
            fingerprint=hashlib.sha256(said).hexdigest(),
        )


def _steps_of(reads: _Reads) -> frozenset[str]:
    return frozenset(reference[1] for reference in reads if reference[0] == "steps")


def _body(step: Mapping[str, Json]) -> Body:
    match step["type"]:
        case "external_service":
            params = Template.parse(step.get("params", {}))
            return ServiceCall(step["service"], step["operation"], params, step.get("cache_ttl"))
        case "language_model":
            system = Template.parse(step["system"]) if "system" in step else None
            return ModelCall(Template.parse(step["prompt"]), system, step.get("schema"))
        case _:
            return Transform(Template.parse(step["value"]))


def _is_one_expression(text: str) -> bool:
    try:
        parts = pieces(text)
    except ExpressionError:
        return True  # told already
    return len(parts) == 1 and parts[0][0]


def _schema_path_fault(what: str, path: list[str], schema: JsonObject) -> str | None:
    """Return why a schema has nothing at ``path``; None if it has, or if it allows any."""
    for part in path:
        properties = schema.get("properties")
        if schema.get("type") != "object" and properties is None and what != "input":
            return None  # of another type, or of any: what is there is seen in the run
        if part not in (properties or {}):
            if schema.get("additionalProperties") or (properties is None and what != "input"):
                return None
            return f"{what} has no {part!r}{did_you_mean(part, properties or {})}"
        schema = (properties or {})[part]
        what = f"{what}.{part}"
    return None


def _value_path_fault(what: str, path: list[str], value: Json) -> str | None:
    for part in path:
        if not isinstance(value, Mapping):
            return None
        if part not in value:
            return f"{what} has no {part!r}{did_you_mean(part, value)}"
        value = value[part]
        what = f"{what}.{part}"
    return None
