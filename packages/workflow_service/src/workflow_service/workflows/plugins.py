"""Workflows that other packages bring: entry points of the group ``workflow_service.workflows``."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TypeAlias

from workflow_service.ports import DocumentParser, DocumentStore, LanguageModel, ServiceCatalog, Workflow
from workflow_service.workflows.engine.kept import Checkpointer

GROUP = "workflow_service.workflows"
"""The entry points of plug-ins: ``name = "package.module:factory"``."""

_PORT = ("name", "description", "input_schema", "check", "run", "forget")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkflowTools:
    """
    What a workflow is built with.

    Attributes:
        documents: Uploaded files.
        parser: Turns a file into text.
        services: The external services.
        model: The language model; None where none is configured.
        checkpointer: Lends the savers of runs, on the loop that the run is on.
    """

    documents: DocumentStore
    parser: DocumentParser
    services: ServiceCatalog
    model: LanguageModel | None
    checkpointer: Checkpointer


Factory: TypeAlias = Callable[[WorkflowTools], Workflow]
"""What an entry point names: makes the workflow. It must not open anything: no loop runs yet."""


def plugin_workflows(
    tools: WorkflowTools, taken: Mapping[str, Workflow], found: Iterable[EntryPoint] | None = None
) -> Mapping[str, Workflow]:
    """
    Return the workflows of all plug-ins by name.

    One that cannot be used is named in the log with the reason, and keeps no other from being used.

    Args:
        tools: What the factories are given.
        taken: Workflows that are there already; a plug-in cannot take their names.
        found: The entry points; None takes those of the installed packages.
    """
    workflows: dict[str, Workflow] = {}
    for entry_point in sorted(entry_points(group=GROUP) if found is None else found, key=lambda each: each.name):
        try:
            workflow = _made(entry_point, tools)
            if workflow.name in (taken.keys() | workflows.keys()):
                raise ValueError(f"the name {workflow.name!r} is taken; choose another")
        except Exception as error:
            _logger.exception("the workflow %s cannot be used: %s", _told(entry_point), error)
            continue
        workflows[workflow.name] = workflow
    return workflows


def _made(entry_point: EntryPoint, tools: WorkflowTools) -> Workflow:
    factory: Factory = entry_point.load()
    workflow = factory(tools)
    lacking = list(_lacking(workflow))
    if lacking:
        raise TypeError(f"{type(workflow).__name__} is no workflow: it lacks {', '.join(lacking)}")
    return workflow


def _lacking(workflow: object) -> Iterator[str]:
    yield from (name for name in _PORT if not hasattr(workflow, name))


def _told(entry_point: EntryPoint) -> str:
    package = f" of {entry_point.dist.name}" if entry_point.dist else ""
    return f"{entry_point.name!r} ({entry_point.value}){package}"
