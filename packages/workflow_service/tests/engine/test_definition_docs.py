"""
The documents on definitions: their examples run, and the reference says what the schema says.

Run as a program it writes docs/reference/workflow-definition.md's tables and the schema beside it.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from workflow_service.external import ServiceResources, service_registry
from workflow_service.external.catalog import RegisteredServices
from workflow_service.ports import RunContext
from workflow_service.settings import ExternalSettings
from workflow_service.testing.providers import ProviderServer
from workflow_service.workflows.engine.definition import service_problems
from workflow_service.workflows.engine.reading import read_definition
from workflow_service.workflows.engine.schemas import definition_schema
from workflow_service.workflows.engine.workflow import DefinedWorkflow
from workflow_service.workflows.plugins import WorkflowTools

DOCS = Path(__file__).parents[4] / "docs"
HOWTO, REFERENCE = DOCS / "howto/workflows.md", DOCS / "reference/workflow-definition.md"
SCHEMA = DOCS / "reference/workflow-definition.schema.json"
TABLE = re.compile(r"(<!-- keys of (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def blocks(path: Path, language: str) -> list[str]:
    """Return a document's blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def with_tables(text: str) -> str:
    """Return the reference with its tables as the schema has them."""
    schema = definition_schema()

    def table(match: re.Match[str]) -> str:
        part = schema if match[2] == "definition" else schema["$defs"][match[2]]
        return f"{match[1]}\n" + "\n".join(_rows(part, schema["$defs"])) + f"\n\n{match[3]}"

    return TABLE.sub(table, text)


def _rows(part: Mapping[str, Any], defs: Mapping[str, Any]) -> Iterator[str]:
    yield "| key | value | |"
    yield "|---|---|---|"
    for key, rule in part["properties"].items():
        if key == "type" and rule is True:
            continue
        rule = {} if rule is True else rule
        target = defs[rule["$ref"].rpartition("/")[2]] if "$ref" in rule else {}
        needed = "**needed** " if key in part.get("required", ()) else ""
        told = rule.get("description") or target.get("description", "")
        yield f"| `{key}` | {_kind({**target, **rule})} | {needed}{told} |"


def _kind(rule: Mapping[str, Any]) -> str:
    if "enum" in rule:
        return ", ".join(f"`{each}`" for each in rule["enum"])
    if "const" in rule:
        return f"`{json.dumps(rule['const'])}`"
    if "if" in rule:  # the one key whose form is its meaning
        return "`fail`, `continue`, `{default: …}`"
    kinds = rule.get("type", "")
    words = " or ".join([kinds] if isinstance(kinds, str) else kinds)
    if "allOf" in rule:
        words = "JSON Schema"
    at_least, at_most = rule.get("minimum", rule.get("minLength")), rule.get("maximum", rule.get("maxLength"))
    bounds = f"at most {at_most:,}" if at_most is not None else ""
    if at_least is not None and at_most is not None:
        bounds = f"{at_least:,} to {at_most:,}"
    return f"{words}, {bounds}" if bounds else words


def test_the_reference_says_what_the_schema_says() -> None:
    """`make docs-workflows` writes it."""
    text = REFERENCE.read_text("utf-8")
    assert with_tables(text) == text
    assert SCHEMA.read_text("utf-8") == _shipped()


def _shipped() -> str:
    return (files("workflow_service") / "workflows/engine/definition.schema.json").read_text("utf-8")


@pytest.fixture
def tools(in_memory: Any, model: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkflowTools]:
    """Services on the local server."""
    absent: Any = None
    with ProviderServer() as providers:
        for name, value in providers.environment.items():
            monkeypatch.setenv(name, value)
        services = RegisteredServices(service_registry, ServiceResources(ExternalSettings.from_environment()))
        yield WorkflowTools(absent, absent, services, model, in_memory)


EXAMPLES: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "greeting": ({"who": "Ada"}, {"said": "Hello, Ada!", "times": 1}),
    "trip_weather": (
        {"from": "Berlin", "to": "Miami"},
        {"here": "Light snow", "there": "Patchy rain nearby", "colder": False, "warnings": []},
    ),
    "mood": ({"text": "How dare you!"}, {"mood": "angry", "answer": None, "tokens": 5}),
}


@pytest.mark.parametrize("text", [*blocks(HOWTO, "yaml"), *blocks(REFERENCE, "yaml")])
def test_every_definition_in_the_documents_is_right_and_runs(
    text: str, tools: WorkflowTools, model: Any, told: Any, run: Callable[..., Any]
) -> None:
    """With the output that its description promises."""
    model.answer = lambda _prompt: {"mood": "angry", "needs_answer": False}
    definition = read_definition(text, "docs.yaml")
    assert service_problems(definition, tools.services.describe()) == []
    workflow = DefinedWorkflow(definition, tools.services, tools.model, tools.checkpointer)
    input_data, output = EXAMPLES[definition.name]
    assert run(lambda: workflow.run(RunContext(uuid4(), "alice", input_data, told()))) == output


def test_the_graph_in_the_documents_runs(tools: WorkflowTools, told: Any, run: Callable[..., Any]) -> None:
    """As it stands there."""
    names: dict[str, Any] = {}
    exec(blocks(HOWTO, "python")[1], names)
    workflow, report = names["weather_report"](tools), told()
    answer = run(lambda: workflow.run(RunContext(uuid4(), "alice", {"city": "Tokyo"}, report)))
    assert answer["said"] == "8.2 degrees in Tokyo"
    assert report.names == ["ask", "write"]


def main() -> None:
    """Write what is made of the schema."""
    REFERENCE.write_text(with_tables(REFERENCE.read_text("utf-8")), "utf-8")
    SCHEMA.write_text(_shipped(), "utf-8")


if __name__ == "__main__":
    main()
