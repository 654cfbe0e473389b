"""A dry run: the order of the steps and what each would be given, without asking anybody."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workflow_service.domain.run import JsonObject
from workflow_service.ports import InvalidInputError
from workflow_service.workflows.engine.definition import Definition, ModelCall, ServiceCall, Step, Transform
from workflow_service.workflows.engine.expressions import Expression, Template, split, written
from workflow_service.workflows.engine.interpreter import ExpressionError, is_truth
from workflow_service.workflows.engine.outcome import Outcome, StepStatus
from workflow_service.workflows.engine.problems import did_you_mean
from workflow_service.workflows.engine.schemas import check_input, with_defaults
from workflow_service.workflows.engine.source import Json


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """
    A step of a dry run.

    Attributes:
        wave: How many steps come before, one after the other; steps of one wave can work side by side.
        kind: Its type, with what it asks.
        needs: The steps that must have ended before.
        runs: Whether its condition holds; None when that is not known before the steps it reads have ended.
        given: What it would be given; expressions that read steps not known yet stand as they are.
        gives: Its data, where that is known.
        fault: Why it would fail.
    """

    name: str
    wave: int
    kind: str
    needs: tuple[str, ...]
    runs: bool | None
    given: Json
    gives: Json = None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A dry run: the steps in order, and the output as far as it is known."""

    steps: tuple[PlannedStep, ...]
    output: Json


def plan(definition: Definition, input_data: JsonObject, assumed: Mapping[str, Json]) -> Plan:
    """
    Plan a run.

    Args:
        definition: What would run.
        input_data: Its input.
        assumed: Data of steps, by name, to go on with as if they had been asked.

    Raises:
        InvalidInputError: The input does not fit the schema, or ``assumed`` names a step that there is not.
    """
    check_input(definition.input_schema, input_data)
    for name in assumed:
        if name not in definition.steps:
            raise InvalidInputError(f"there is no step {name!r}{did_you_mean(name, definition.steps)}")
    planning = _Planning(definition, with_defaults(definition.input_schema, input_data), assumed)
    steps = tuple(planning.step(step) for step in definition.steps.values())
    return Plan(steps, planning.rendered(definition.output)[0])


class _Planning:
    def __init__(self, definition: Definition, input_data: Json, assumed: Mapping[str, Json]) -> None:
        self._waves = definition.waves
        self._assumed = assumed
        self._known: dict[str, Outcome] = {}
        self._names = {"input": input_data, "constants": definition.constants}

    def step(self, step: Step) -> PlannedStep:
        """Plan one step; those it needs are planned."""
        runs: bool | None = True
        given: Json = None
        gives: Json = None
        fault: str | None = None
        try:
            if step.when is not None:
                condition, is_known = self.rendered(step.when)
                runs = is_truth(condition) if is_known else None
            if runs is not False:
                given, is_known = self._given(step)
                if isinstance(step.body, Transform) and is_known:
                    given, gives = step.body.value.source, given
                    if runs:
                        self._known[step.name] = Outcome(StepStatus.SUCCEEDED, data=gives)
        except ExpressionError as error:
            fault = str(error)
        if runs is False:
            self._known[step.name] = Outcome(StepStatus.SKIPPED)
        elif step.name in self._assumed:
            gives = self._assumed[step.name]
            self._known[step.name] = Outcome(StepStatus.SUCCEEDED, data=gives)
        needs = tuple(sorted(step.needs))
        return PlannedStep(step.name, self._waves[step.name], _kind(step), needs, runs, given, gives, fault)

    def rendered(self, template: Template) -> tuple[Json, bool]:
        """Return a template's value and True; or, with what is known filled in, False."""
        steps = {reference[1] for reference in template.references() if reference[0] == "steps"}
        names = {**self._names, "steps": {name: outcome.to_json() for name, outcome in self._known.items()}}
        if steps <= self._known.keys():
            return template.value(names), True
        return self._filled(template.source, names), False

    def _given(self, step: Step) -> tuple[Json, bool]:
        match step.body:
            case ServiceCall() as call:
                return self.rendered(call.params)
            case ModelCall() as call:
                parts = {"system": call.system, "prompt": call.prompt}
                return {key: self.rendered(part)[0] for key, part in parts.items() if part is not None}, False
            case transform:
                return self.rendered(transform.value)

    def _filled(self, value: Json, names: Mapping[str, Any]) -> Json:
        if isinstance(value, str):
            return self._filled_text(value, names)
        if isinstance(value, Mapping):
            return {key: self._filled(item, names) for key, item in value.items()}
        return [self._filled(item, names) for item in value] if isinstance(value, list) else value

    def _filled_text(self, text: str, names: Mapping[str, Any]) -> Json:
        parts = split(text)
        if all(isinstance(part, str) or self._is_known(part) for part in parts):
            return Template.parse(text).value(names)
        shown = (
            part if isinstance(part, str) else written(part.value(names)) if self._is_known(part) else str(part)
            for part in parts
        )
        return "".join(shown)

    def _is_known(self, expression: Expression) -> bool:
        return all(each[0] != "steps" or each[1] in self._known for each in expression.references())


def _kind(step: Step) -> str:
    match step.body:
        case ServiceCall() as call:
            return f"external_service {call.service} {call.operation}"
        case ModelCall():
            return "language_model"
        case _:
            return "transform"
