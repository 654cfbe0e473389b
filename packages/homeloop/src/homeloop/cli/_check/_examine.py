"""Read the files that are to be checked, and apply the rules to them."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from homeloop.cli._check import _rules_hosts as hosts
from homeloop.cli._check import _rules_loops as loops
from homeloop.cli._check import _rules_objects as objects
from homeloop.cli._check._catalogue import BY_CODE
from homeloop.cli._check._config import Config
from homeloop.cli._check._findings import Finding
from homeloop.cli._check._project import Project
from homeloop.cli._check._rules_shared import shared_objects
from homeloop.cli._check._source import Module, read_module

_SKIPPED = frozenset(
    ("__pycache__", "node_modules", "site-packages", "dist-packages", "build", "dist", "venv", "env")
)
_CHECKS: tuple[Callable[[Project], Iterator[Finding]], ...] = (
    shared_objects,
    objects.async_tasks,
    objects.savers,
    objects.touched_from_thread,
    objects.used_after_block,
    hosts.fixtures,
    hosts.invoked_graphs,
    hosts.opened_before_fork,
    hosts.outer_clients,
    loops.closed_in_new_loop,
    loops.needs_loop_at_import,
    loops.no_loop_in_thread,
    loops.patched_loops,
    loops.run_inside_loop,
    loops.waits_for_own_loop,
)


@dataclass(frozen=True, slots=True)
class Result:
    """What was found; which files could not be read, and why; how many were checked."""

    findings: tuple[Finding, ...]
    unread: tuple[tuple[Path, str], ...]
    checked: int


def examine(paths: Sequence[Path], config: Config) -> Result:
    """Check files and folders, all as one project."""
    modules: list[Module] = []
    unread: list[tuple[Path, str]] = []
    for path, root in _files(paths, config, unread):
        try:
            modules.append(read_module(path, root))
        except SyntaxError as error:
            unread.append((path, f"line {error.lineno}: {error.msg}" if error.lineno else error.msg))
        except OSError as error:
            unread.append((path, error.strerror or str(error)))
        except UnicodeDecodeError as error:
            unread.append((path, str(error)))
    project = Project(modules)
    by_path = {module.path: module for module in modules}
    kept: dict[tuple[str, Path, int, int], Finding] = {}
    for check in _CHECKS:
        for finding in check(project):
            if config.wants(finding.code, finding.spot.path) and not _is_ignored(finding, by_path):
                spot = finding.spot
                kept.setdefault((finding.code, spot.path, spot.line, spot.column), finding)
    ordered = sorted(kept.values(), key=lambda each: (str(each.spot.path), each.spot.line, each.code))
    return Result(tuple(ordered), tuple(unread), len(modules))


def _is_ignored(finding: Finding, modules: dict[Path, Module]) -> bool:
    rule, spot = BY_CODE[finding.code], finding.spot
    return modules[spot.path].is_ignored(spot.line, rule.code, rule.name)


def _files(paths: Sequence[Path], config: Config, unread: list[tuple[Path, str]]) -> Iterator[tuple[Path, Path]]:
    """Yield each file once, however it is named, with what was asked for that contains it."""

    def note(error: OSError) -> None:
        unread.append((Path(error.filename), error.strerror or str(error)))

    seen: set[str] = set()
    for root in paths:
        for path in sorted(_python_files(root, config, note)) if root.is_dir() else [root]:
            whole = os.path.realpath(path)
            if whole not in seen:
                seen.add(whole)
                yield path, root


def _python_files(root: Path, config: Config, note: Callable[[OSError], None]) -> Iterator[Path]:
    for folder, folders, files in os.walk(root, onerror=note):
        folders[:] = [
            each
            for each in folders
            if each not in _SKIPPED and not each.startswith(".") and not config.excludes(Path(folder, each))
        ]
        for name in files:
            path = Path(folder, name)
            if fnmatch(name, "*.py") and not config.excludes(path):
                yield path
