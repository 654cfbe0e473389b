"""All workflows of a process by name: those written in Python, plug-ins, and definitions."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from workflow_service.ports import Workflow
from workflow_service.workflows.engine.definition import Definition, service_problems
from workflow_service.workflows.engine.loading import load_folder, shipped_definitions
from workflow_service.workflows.engine.workflow import DefinedWorkflow
from workflow_service.workflows.plugins import WorkflowTools, plugin_workflows

_logger = logging.getLogger(__name__)


def all_workflows(
    built_in: Iterable[Workflow], tools: WorkflowTools, definitions: Path | None
) -> Mapping[str, Workflow]:
    """
    Return the workflows that users can run, by name.

    A plug-in or a definition that cannot be used is named in the log with the reason and the place, and keeps
    nothing else from being used. A definition may take the place of one that ships, never of a workflow that is
    written in Python.

    Args:
        built_in: The workflows of this package that are written in Python.
        tools: What the others are built with.
        definitions: A folder with definitions; None for those that ship alone.
    """
    written = {workflow.name: workflow for workflow in built_in}
    written |= plugin_workflows(tools, written)
    defined = dict(shipped_definitions())
    if definitions is not None:
        loaded = load_folder(definitions)
        for problem in loaded.problems:
            _logger.error("workflow definition: %s", problem)
        defined |= loaded.definitions
    workflows: dict[str, Workflow] = {}
    for definition in defined.values():
        if definition.name in written:
            message = f"the name {definition.name!r} belongs to a workflow written in Python; choose another"
            _logger.error("workflow definition: %s", definition.source.problem(("name",), message))
            continue
        _tell_of_services(definition, tools)
        workflows[definition.name] = DefinedWorkflow(definition, tools.services, tools.model, tools.checkpointer)
    return {**written, **workflows}


def _tell_of_services(definition: Definition, tools: WorkflowTools) -> None:
    # Told, not refused: the plug-in may be broken in this process only, and on_error may allow for it.
    for problem in service_problems(definition, tools.services.describe()):
        _logger.error("workflow definition: %s", problem)
