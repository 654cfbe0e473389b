"""Rules on objects that one loop made and another one uses: reported only where several loops reach them."""

import ast
from collections.abc import Iterator

from homeloop.cli._check._entries import Entries, Entry
from homeloop.cli._check._findings import Finding, found
from homeloop.cli._check._names import Target
from homeloop.cli._check._project import Project
from homeloop.cli._check._runs import Run
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
    uses = _Uses(project, objects, entries)
    for shared in objects.all():
        users = uses.of(shared)
        stale = [run for run in users if not _is_fresh(shared, uses.reach[run.call], objects)]
        if stale and (finding := _judged(shared, stale, uses, entries)) is not None:
            yield finding


def _judged(shared: Shared, stale: list[Run], uses: "_Uses", entries: Entries) -> Finding | None:
    reached = [(run, entry) for run in stale if (entry := entries.of(run.scope)) is not None]
    for run, entry in reached:
        if entries.is_task(entry.scope):
            return _run_in_task(shared, run, entry)
    if reached:
        run, entry = reached[0]
        return _blamed(
            shared,
            f"every call of the {entry} uses it on a loop of its own",
            (run.scope, run.call, "a loop is started here"),
            (entry.scope, entry.scope.node, f"in each call of this {entry.kind}"),
        )
    server = uses.hosted(shared)
    beside = next((run for run in stale if _is_beside_a_server(run, entries)), None)
    if server is not None and beside is not None:
        return _blamed(
            shared,
            "a server's loop and a thread's use it both",
            (beside.scope, beside.call, "the thread's is started here"),
            (server, server.node, "this runs on the server's"),
        )
    others = [run for run in uses.of(shared) if run not in stale]
    times = entries.times(stale + others)
    tests = [run for run in stale if _is_test(run.scope)]
    if times >= _MANY or len(tests) >= _MANY:
        run = (tests or stale)[-1]
        return _blamed(
            shared,
            "several loops use it, one after the other",
            (run.scope, run.call, "a loop is started here, and ended"),
        )
    return None


def _blamed(shared: Shared, why: str, *related: tuple[Scope, ast.AST, str]) -> Finding:
    message = f"{shared.what} `{shared.name}` {_HOW[shared.code]}, but {why}"
    return found(shared.code, shared.scope, shared.made, message, *related)


def _is_beside_a_server(run: Run, entries: Entries) -> bool:
    """Say whether a run is that of a thread which a module or a server's own coroutine starts."""
    if not run.is_elsewhere and not entries.is_on_thread(run.scope):
        return False  # a script's: a process of its own
    return entries.is_hosted(run.scope) or entries.times([run]) > 0


def _run_in_task(shared: Shared, run: Run, entry: Entry) -> Finding:
    return found(
        "HL104",
        run.scope,
        run.call,
        f"every call of the {entry} starts a loop for {shared.what} `{shared.name}`, "
        "which belongs to the loop of the first one",
        (shared.scope, shared.made, "it is made once, here"),
        (entry.scope, entry.scope.node, "the task"),
        *run.start,
    )


def _is_test(scope: Scope) -> bool:
    return scope.qualname.rpartition(".")[2].startswith("test") and scope.module.path.stem.startswith("test_")


class _Uses:
    """
    Which runs use what: read once, for all objects.

    Attributes:
        reach: For each run's call our functions that run on its loop.
    """

    def __init__(self, project: Project, objects: SharedObjects, entries: Entries) -> None:
        self.reach = {run.call: project.coroutines(run) for run in project.runs}
        self._runs: dict[Target, dict[ast.AST, Run]] = {}
        within: dict[Scope, set[Target]] = {}
        for run in project.runs:
            named = {each for node, scope in _given(run, project) for each in objects.named((node,), scope)}
            for scope in self.reach[run.call]:
                if scope not in within:
                    within[scope] = objects.named(scope.own, scope)
                named |= within[scope]
            for target in named:
                self._runs.setdefault(target, {})[run.call] = run
        self._hosted: dict[Target, Scope] = {}
        for scope in project.reached(list(entries.hosted)):
            for target in within.get(scope) or objects.named(scope.own, scope):
                self._hosted[target] = scope

    def of(self, shared: Shared) -> list[Run]:
        """Return the runs that use an object, other than the one that makes it."""
        found = {call: run for target in shared.targets for call, run in self._runs.get(target, {}).items()}
        if shared.member is not None:
            using = self._runs.get(shared.member, {})
            found = {call: run for call, run in found.items() if call in using}
        return [run for call, run in found.items() if call is not shared.made]

    def hosted(self, shared: Shared) -> Scope | None:
        """Return a function that uses an object on a server's loop."""
        wanted = shared.targets if shared.member is None else {shared.member}
        return next((self._hosted[target] for target in wanted if target in self._hosted), None)


def _given(run: Run, project: Project) -> Iterator[tuple[ast.AST, Scope]]:
    """Yield what the coroutines' expressions consist of, with the values of their local names."""
    for scope, coroutine in run.coroutines:
        for node in ast.walk(coroutine):
            yield node, scope
            if isinstance(node, ast.Name):
                value = project.value_of(node, scope)
                if value is not None and value is not node and node.id in scope.names:
                    yield from ((each, scope) for each in ast.walk(value))


def _is_fresh(shared: Shared, reach: list[Scope], objects: SharedObjects) -> bool:
    """Say whether the object is made by the very run, or closed before its end."""
    return any(scope in shared.makers or objects.closes(shared, scope) for scope in reach)
