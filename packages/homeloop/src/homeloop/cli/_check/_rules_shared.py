"""Rules on objects that one loop made and another one uses: reported only where several loops reach them."""

import ast
from collections.abc import Iterator

from homeloop.cli._check._entries import Entries, Entry
from homeloop.cli._check._findings import Finding, found
from homeloop.cli._check._project import Project, Run, Target
from homeloop.cli._check._shared import Shared, SharedObjects
from homeloop.cli._check._source import Scope

_MANY = 2
_HOW = {
    "HL101": "is made once, when the module is imported",
    "HL102": "is cached",
    "HL103": "is kept once it is made",
    "HL109": "is made once",
}


def shared_objects(project: Project) -> Iterator[Finding]:
    """Find what is used by several loops, one after the other or at once."""
    entries, objects = Entries(project), SharedObjects(project)
    uses = _Uses(project, objects)
    for shared in objects.all():
        users = uses.of(shared)
        stale = [run for run in users if not _is_fresh(shared, uses.reach[run.call], objects)]
        if stale:
            yield from _judged(shared, stale, users, project, entries)


def _judged(
    shared: Shared, stale: list[Run], users: list[Run], project: Project, entries: Entries
) -> Iterator[Finding]:
    reached = [(run, entry) for run in stale if (entry := entries.of(run.scope)) is not None]
    for run, entry in reached:
        if entries.is_task(entry.scope):
            yield _run_in_task(shared, run, entry)
            return
    thing = f"{shared.what} `{shared.name}` {_HOW[shared.code]}, but every call"
    for run, entry in reached:
        yield found(
            shared.code,
            shared.scope,
            shared.made,
            f"{thing} of the {entry} uses it on a loop of its own",
            (run.scope, run.call, "a loop is started here"),
            (entry.scope, entry.scope.node, f"in each call of this {entry.kind}"),
        )
        return
    others = [run for run in users if run not in stale]
    times = max((entries.times(module, stale + others) for module in project.modules), default=0)
    tests = [run for run in stale if _is_test(run.scope)]
    if times >= _MANY or len(tests) >= _MANY:
        run = (tests or stale)[-1]
        yield found(
            shared.code,
            shared.scope,
            shared.made,
            f"{shared.what} `{shared.name}` {_HOW[shared.code]}, but several loops use it, one after the other",
            (run.scope, run.call, "a loop is started here, and ended"),
        )


def _run_in_task(shared: Shared, run: Run, entry: Entry) -> Finding:
    return found(
        "HL104",
        run.scope,
        run.call,
        f"every call of the {entry} starts a loop for {shared.what} `{shared.name}`, "
        "which belongs to the loop of the first one",
        (shared.scope, shared.made, "it is made once, here"),
        (entry.scope, entry.scope.node, "the task"),
    )


def _is_test(scope: Scope) -> bool:
    return scope.qualname.rpartition(".")[2].startswith("test") and scope.module.path.stem.startswith("test_")


class _Uses:
    """
    Which runs use what: read once, for all objects.

    Attributes:
        reach: For each run's call our functions that run on its loop.
    """

    def __init__(self, project: Project, objects: SharedObjects) -> None:
        self._objects = objects
        self.reach = {run.call: project.coroutines(run) for run in project.runs}
        self._runs: dict[Target, dict[ast.Call, Run]] = {}
        within: dict[Scope, set[Target]] = {}
        for run in project.runs:
            named = objects.named(_given(run, project), run.scope)
            for scope in self.reach[run.call]:
                if scope not in within:
                    within[scope] = objects.named(scope.own, scope)
                named |= within[scope]
            for target in named:
                self._runs.setdefault(target, {})[run.call] = run

    def of(self, shared: Shared) -> list[Run]:
        """Return the runs that use an object, other than the one that makes it."""
        found = {call: run for target in shared.targets for call, run in self._runs.get(target, {}).items()}
        return [
            run
            for call, run in found.items()
            if call is not shared.made
            and (
                shared.member is None
                or any(self._objects.uses_member(shared, scope) for scope in self.reach[call])
            )
        ]


def _given(run: Run, project: Project) -> Iterator[ast.AST]:
    """Yield what the coroutine's expression consists of, with the values of its local names."""
    if run.coroutine is None:
        return
    for node in ast.walk(run.coroutine):
        yield node
        if isinstance(node, ast.Name):
            value = project.value_of(node, run.scope)
            if value is not None and value is not node and node.id in run.scope.names:
                yield from ast.walk(value)


def _is_fresh(shared: Shared, reach: list[Scope], objects: SharedObjects) -> bool:
    """Say whether the object is made by the very run, or closed before its end."""
    return any(scope in shared.makers or objects.closes(shared, scope) for scope in reach)
