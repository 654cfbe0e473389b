"""The commands for those who write workflow definitions: ``workflow schema``, ``validate`` and ``dry-run``."""

import json
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from workflow_service.cli.view import View
from workflow_service.domain.external import ServiceDescription
from workflow_service.ports import InvalidInputError
from workflow_service.workflows.engine.definition import ENDINGS, Definition, service_problems
from workflow_service.workflows.engine.dry_run import Plan, PlannedStep, plan
from workflow_service.workflows.engine.loading import load_file, load_folder
from workflow_service.workflows.engine.problems import DefinitionError, Problem
from workflow_service.workflows.engine.schemas import definition_schema

_Json = Any  # JSON as Python has it
_WIDTH = 90  # characters of a value that stands on one line


class JsonOption(click.ParamType[_Json]):
    """JSON, or @ and the name of a file that holds it."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> _Json:
        """Return the value. Any: what click passes, a text or a default."""
        if not isinstance(value, str):
            return value
        try:
            text = Path(value[1:]).read_text("utf-8") if value.startswith("@") else value
            return json.loads(text)
        except OSError as error:
            self.fail(f"{value[1:]} cannot be read: {error.strerror}", param, ctx)
        except ValueError as error:
            self.fail(f"this is no JSON: {error}", param, ctx)


class StepOption(click.ParamType[tuple[str, _Json]]):
    """The name of a step, =, and its data as JSON."""

    name = "step=json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, _Json]:
        """Return the step's name and its data."""
        step, equals, data = str(value).partition("=")
        if not equals:
            self.fail(f"{value!r} must be STEP=JSON, such as weather='{{\"temp\": 7}}'", param, ctx)
        return step, JsonOption().convert(data, param, ctx)


@click.group()
def workflow() -> None:
    """Check workflow definitions, and see what they would do."""


@workflow.command()
def schema() -> None:
    """Print the JSON Schema of workflow definitions, for editors and other programs."""
    click.echo(json.dumps(definition_schema(), indent=2, ensure_ascii=False))


@workflow.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def validate(paths: tuple[Path, ...]) -> None:
    """Check the definitions in files, and in folders as WORKFLOW_DEFINITIONS names one.

    Prints a line for each fault, FILE:LINE:COLUMN: what is wrong, and exits with 1 if there is any. What the
    definitions ask of external services is checked by those that are installed here.
    """
    problems: list[Problem] = []
    services = _services()
    for found in _found(paths):
        if isinstance(found, Problem):
            problems.append(found)
            continue
        wrong = service_problems(found, services)
        problems.extend(wrong)
        if not wrong:
            click.echo(f"{found.source.file}: {found.name} is right, with {_steps(len(found.steps))}")
    for problem in problems:
        click.echo(str(problem), err=True)
    sys.exit(1 if problems else 0)


@workflow.command("dry-run")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--input", "input_data", type=JsonOption(), default=dict, help="The run's input, or @FILE.  [default: {}]"
)
@click.option(
    "--given",
    "given",
    type=StepOption(),
    multiple=True,
    help="Go on as if STEP had given this data. May be used several times.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def dry_run(path: Path, input_data: _Json, given: tuple[tuple[str, _Json], ...], as_json: bool) -> None:
    """Show the order of the steps and what each would be given; nothing is asked.

    Expressions that read steps whose data is not known stand as they are; --given lets them be worked out.
    """
    try:
        planned = plan(load_file(path), input_data, dict(given))
    except DefinitionError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    except InvalidInputError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    if as_json:
        click.echo(json.dumps(asdict(planned), indent=2, ensure_ascii=False))
    else:
        for line in _shown(planned):
            click.echo(line)


def warn_of_definitions(folder: Path, view: View) -> None:
    """Say which definitions in a folder cannot be used: the service starts without them."""
    for problem in load_folder(folder).problems:
        view.warn(f"left out: {problem}")


def _services() -> Collection[ServiceDescription]:
    # Here: they weigh more than all the rest of the command line.
    from workflow_service.external import ServiceResources, service_registry
    from workflow_service.external.catalog import RegisteredServices
    from workflow_service.settings import ExternalSettings

    # Nothing is asked: neither keys nor addresses matter for what a service offers.
    return RegisteredServices(service_registry, ServiceResources(ExternalSettings.model_construct())).describe()


def _found(paths: Iterable[Path]) -> Iterator[Definition | Problem]:
    for path in paths:
        if path.is_dir():
            loaded = load_folder(path)
            yield from loaded.definitions.values()
            yield from loaded.problems
            if not loaded.definitions and not loaded.problems:
                yield Problem(str(path), 1, 1, f"no definition is in here: no file ends with {', '.join(ENDINGS)}")
        else:
            try:
                yield load_file(path)
            except DefinitionError as error:
                yield from error.problems


def _shown(planned: Plan) -> Iterator[str]:
    yield f"{_steps(len(planned.steps))}; those of one number can work side by side"
    for step in planned.steps:
        yield ""
        yield f"{step.wave + 1}. {step.name}: {step.kind}{_after(step)}"
        if step.runs is False:
            yield "   skipped: its condition does not hold"
            continue
        if step.runs is None:
            yield "   if its condition holds, which is not known yet"
        if step.fault is not None:
            yield f"   would fail: {step.fault}"
            continue
        yield from _block("given", step.given)
        if step.gives is not None:
            yield from _block("gives", step.gives)
    yield ""
    yield from _block("output", planned.output, indent="")


def _after(step: PlannedStep) -> str:
    return f", after {', '.join(step.needs)}" if step.needs else ""


def _block(title: str, value: _Json, indent: str = "   ") -> Iterator[str]:
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and "\n" in value:
        text = "\n  " + value.strip().replace("\n", "\n  ")
    elif len(text) > _WIDTH:
        text = json.dumps(value, indent=2, ensure_ascii=False)
    first, *others = text.splitlines()
    yield f"{indent}{title}: {first}".rstrip()
    yield from (f"{indent}{line}" for line in others)


def _steps(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"
