"""A definition: a workflow of steps as its file tells it, checked as far as it can be before a run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path as FilePath
from typing import TypeAlias

from workflow_service.domain.external import ServiceDescription
from workflow_service.domain.run import JsonObject
from workflow_service.workflows.engine.expressions import Template
from workflow_service.workflows.engine.problems import DefinitionError, Problem, did_you_mean
from workflow_service.workflows.engine.schemas import faults_of
from workflow_service.workflows.engine.source import MAX_CHARACTERS, Json, Source, texts

ENDINGS = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class ServiceCall:
    """What an ``external_service`` step asks."""

    service: str
    operation: str
    params: Template
    cache_ttl: float | None


@dataclass(frozen=True, slots=True)
class ModelCall:
    """What a ``language_model`` step asks."""

    prompt: Template
    system: Template | None
    schema: JsonObject | None


@dataclass(frozen=True, slots=True)
class Transform:
    """What a ``transform`` step makes."""

    value: Template


Body: TypeAlias = ServiceCall | ModelCall | Transform


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a step is tried, and the seconds between the attempts."""

    attempts: int = 1
    wait: float = 0.5
    max_wait: float = 30.0


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a definition.

    Attributes:
        needs: The steps that must have ended before, named or read.
        timeout: Seconds that one attempt may take.
        default: What takes the place of the data after a failure.
        is_fatal: Whether its failure ends the run.
        fingerprint: The same in two versions of a definition if the step does the same in both, and so do all
            that it needs: then what one version has kept serves the other.
    """

    name: str
    body: Body
    needs: frozenset[str]
    when: Template | None
    timeout: float
    retry: Retry
    is_fatal: bool
    default: Template
    fingerprint: str


@dataclass(frozen=True)
class Definition:
    """A checked definition. ``steps`` stand in an order in which they could run one by one."""

    name: str
    description: str
    input_schema: JsonObject
    constants: JsonObject
    max_parallel: int
    steps: Mapping[str, Step]
    output: Template
    source: Source = field(repr=False, compare=False)

    @cached_property
    def waves(self) -> Mapping[str, int]:
        """How many steps, at the least, come before each step, one after the other."""
        waves: dict[str, int] = {}
        for step in self.steps.values():
            waves[step.name] = 1 + max((waves[name] for name in step.needs), default=-1)
        return waves

    def sorter(self) -> TopologicalSorter[str]:
        """Return what tells which steps can begin now."""
        sorter = TopologicalSorter({step.name: step.needs for step in self.steps.values()})
        sorter.prepare()
        return sorter


def read_file(path: FilePath) -> str:
    """
    Return the text of a definition's file.

    Raises:
        DefinitionError: It cannot be read, is too large, or is no UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(4 * MAX_CHARACTERS + 1)  # UTF-8 has at most four bytes for a character
        return content.decode("utf-8-sig")
    except OSError as error:
        message = f"the file cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        message = f"the file is no UTF-8 at byte {error.start}, or too large; save it as UTF-8"
    raise DefinitionError([Problem(str(path), 1, 1, message)])


def service_problems(definition: Definition, services: Iterable[ServiceDescription]) -> list[Problem]:
    """Return what a definition asks of services that these services do not have."""
    known = {service.name: service for service in services}
    problems: list[Problem] = []
    for step in definition.steps.values():
        if isinstance(step.body, ServiceCall):
            problems.extend(_call_problems(definition.source, step.name, step.body, known))
    return problems


def _call_problems(
    source: Source, name: str, call: ServiceCall, known: Mapping[str, ServiceDescription]
) -> Iterable[Problem]:
    path = ("steps", name)
    service = known.get(call.service)
    if service is None:
        message = f"there is no service {call.service!r}{did_you_mean(call.service, known)}"
        yield source.problem((*path, "service"), message)
        return
    schema = service.operations.get(call.operation)
    if schema is None:
        hint = did_you_mean(call.operation, service.operations)
        message = f"{call.service} has no operation {call.operation!r}{hint}"
        yield source.problem((*path, "operation"), message)
        return
    properties: Mapping[str, JsonObject] = schema.get("properties", {})
    params: Mapping[str, Json] = call.params.source
    lacking = [each for each in schema.get("required", ()) if each not in params]
    if lacking:
        message = f"{call.operation} needs {', '.join(map(repr, lacking))}"
        has_params = "params" in source.value["steps"][name]
        yield source.problem((*path, "params") if has_params else path, message, at_key=True)
    for key, value in params.items():
        place = (*path, "params", key)
        if key not in properties:
            if schema.get("additionalProperties") is False:
                message = f"{call.operation} has no parameter {key!r}{did_you_mean(key, properties)}"
                yield source.problem(place, message, at_key=True)
        elif not any("${{" in text for _, text in texts(value)):
            for fault in faults_of(properties[key], value):
                yield source.problem(place, fault.told_of(f"{call.operation}'s {key}"))
