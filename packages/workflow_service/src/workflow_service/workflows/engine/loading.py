"""Finds definitions: those that ship with the service, and those in a folder of the operator's."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path

from workflow_service.workflows.engine.definition import ENDINGS, Definition, read_file
from workflow_service.workflows.engine.problems import DefinitionError, Problem
from workflow_service.workflows.engine.reading import read_definition


@dataclass(frozen=True, slots=True)
class Loaded:
    """The definitions of some files by name, and what is wrong with the files that could not be used."""

    definitions: Mapping[str, Definition]
    problems: tuple[Problem, ...] = field(default=())


def load_file(path: Path) -> Definition:
    """Read the definition in a file. Raises DefinitionError if it cannot be used."""
    return read_definition(read_file(path), str(path))


def shipped_definitions() -> Mapping[str, Definition]:
    """Return the definitions that are part of the service. Raises DefinitionError for a broken installation."""
    with as_file(files("workflow_service") / "workflows" / "definitions") as folder:
        definitions = [load_file(path) for path in _definition_files(folder)]
    return {definition.name: definition for definition in definitions}


def load_folder(folder: Path) -> Loaded:
    """
    Return the definitions in a folder, its sub-folders left out.

    A file that cannot be used is told in ``problems`` and keeps no other from being used. Of two files with one
    name the first by file name is used. Files and folders whose names begin with a dot are left out.
    """
    if not folder.is_dir():
        return Loaded({}, (Problem(str(folder), 1, 1, "there is no such folder; see WORKFLOW_DEFINITIONS"),))
    definitions: dict[str, Definition] = {}
    problems: list[Problem] = []
    try:
        paths = _definition_files(folder)
    except OSError as error:
        return Loaded({}, (Problem(str(folder), 1, 1, f"the folder cannot be read: {error.strerror}"),))
    for path in paths:
        try:
            definition = load_file(path)
        except DefinitionError as error:
            problems.extend(error.problems)
            continue
        first = definitions.setdefault(definition.name, definition)
        if first is not definition:
            message = f"the name {definition.name!r} is taken by {first.source.file}; choose another"
            problems.append(definition.source.problem(("name",), message))
    return Loaded(definitions, tuple(problems))


def _definition_files(folder: Path) -> Iterable[Path]:
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and not path.name.startswith(".")
    )
