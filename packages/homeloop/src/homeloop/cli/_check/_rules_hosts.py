"""Rules on hosts: tests with loops of their own, workers that fork, graphs, functions inside coroutines."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from homeloop.cli._check._entries import Entries
from homeloop.cli._check._findings import Finding, found
from homeloop.cli._check._known import RUNS
from homeloop.cli._check._names import Global
from homeloop.cli._check._project import Project
from homeloop.cli._check._runs import Run
from homeloop.cli._check._shared import SharedObjects
from homeloop.cli._check._source import Module, Scope

_WIDE = frozenset(("class", "module", "package", "session"))
_SETTINGS = ("pyproject.toml", "pytest.ini", "pytest.toml", "setup.cfg", "tox.ini")


def outer_clients(project: Project) -> Iterator[Finding]:
    """HL116: a function inside a coroutine starts another loop for what the coroutine has opened on its own."""
    objects = SharedObjects(project)
    for run in project.runs:
        if run.scope.is_async and not run.is_elsewhere:
            continue
        for holder, name, value, at in _outer_names(project, run):
            what = objects.made_by(value, holder) or _entered(project, value, holder)
            if what is not None:
                yield found(
                    "HL116",
                    run.scope,
                    run.call,
                    f"{what} `{name}` belongs to the loop that runs {holder.label}(), not to the one started here",
                    (holder, value, "it is made here"),
                    (at[0], at[1], "it is used here"),
                    *run.start,
                )
                break


def _outer_names(project: Project, run: Run) -> Iterator[tuple[Scope, str, ast.expr, tuple[Scope, ast.AST]]]:
    """Yield names of an enclosing coroutine function that a run uses, or that its function was handed."""
    used = [(node, at) for at, coroutine in run.coroutines for node in ast.walk(coroutine)]
    used += [(node, scope) for scope in project.coroutines(run) for node in scope.own]
    given = {
        name: (each.by, value)
        for each in project.handed
        if each.function is run.scope
        for name, value in zip(each.function.parameters, each.arguments, strict=False)
    }
    for node, scope in used:
        if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load):
            continue
        holder = project.holder_of(node.id, scope)
        if holder is run.scope and node.id in given:
            by, value = given[node.id]
            known = project.value_of(value, by)
            if by.is_async and known is not None:
                yield by, node.id, known, (scope, node)
        elif holder is not None and holder.is_async:
            is_outer = _encloses(holder, run.scope) or (run.is_elsewhere and holder is run.scope)
            known = project.value_of(node, scope) if is_outer else None
            if known is not None:
                yield holder, node.id, known, (scope, node)


def _encloses(outer: Scope, inner: Scope) -> bool:
    at = inner.parent
    while at is not None and at is not outer:
        at = at.parent
    return at is outer


def _entered(project: Project, value: ast.expr, scope: Scope) -> str | None:
    """Return what an ``async with`` opens that is not a client by itself, but gives one."""
    target = project.called(value, scope)
    return target if isinstance(target, str) and target.endswith(".from_conn_string") else None


def fixtures(project: Project) -> Iterator[Finding]:
    """HL117: an async fixture of a session opens a client that tests use on loops of their own."""
    objects = SharedObjects(project)
    for scope in project.scopes:
        name = scope.qualname
        if not scope.is_async or not any(_is_wide(project, each, scope) for each in scope.decorators):
            continue
        made = next(
            (node for node in scope.own if isinstance(node, ast.expr) and objects.made_by(node, scope)), None
        )
        if made is None:
            continue
        for test in project.scopes:
            if test.is_async and _has_own_loop(test) and name in test.parameters:
                yield found(
                    "HL117",
                    scope,
                    made,
                    f"the fixture {name} opens {objects.made_by(made, scope)} on the loop of its scope, "
                    f"but {test.label}() runs on its own",
                    (test, test.node, "the test"),
                )
                break


def _is_wide(project: Project, decorator: ast.expr, scope: Scope) -> bool:
    if (
        not isinstance(decorator, ast.Call)
        or project.called(decorator, scope.parent or scope) != "pytest_asyncio.fixture"
    ):
        return False
    given = {each.arg: each.value for each in decorator.keywords}
    chosen = given.get("loop_scope", given.get("scope"))
    return isinstance(chosen, ast.Constant) and chosen.value in _WIDE


def _has_own_loop(scope: Scope) -> bool:
    """Say whether a function is a test that pytest-asyncio runs on a loop of its own."""
    if not scope.qualname.rpartition(".")[2].startswith("test"):
        return False
    marks = [ast.unparse(each) for each in scope.decorators]
    marks += [ast.unparse(each) for each in scope.module.top.names.get("pytestmark", []) if each is not None]
    asyncio_marks = [mark for mark in marks if "mark.asyncio" in mark]
    if not asyncio_marks or any("loop_scope" in mark for mark in asyncio_marks):
        return False
    return not _has_wide_loops(scope.module.path.parent)


@cache
def _has_wide_loops(folder: Path) -> bool:
    """Say whether pytest is told to run all tests of a scope on one loop."""
    for above in (folder, *folder.absolute().parents):
        for name in _SETTINGS:
            file = above / name
            if file.is_file() and "asyncio_default_test_loop_scope" in file.read_text("utf-8", "replace"):
                return True
    return False


def opened_before_fork(project: Project) -> Iterator[Finding]:
    """HL118: a module of Celery tasks opens a client when it is imported, before the workers are forked."""
    entries, objects = Entries(project), SharedObjects(project)
    tasks = [scope for scope in project.scopes if entries.is_task(scope)]
    for module in project.modules:
        for name, values in module.top.names.items():
            for value in values:
                if not _is_run(project, value, module) or value is None or not objects.made_by(value, module.top):
                    continue
                target = Global(module, name)
                for task in tasks:
                    nodes = [(node, scope) for scope in project.reached([task]) for node in scope.own]
                    if any(project.resolve(node, scope) == target for node, scope in nodes):
                        message = f"`{name}` is opened by the worker's parent process, and used in its children"
                        yield found("HL118", module.top, value, message, (task, task.node, "this task uses it"))
                        break


def _is_run(project: Project, value: ast.expr | None, module: Module) -> bool:
    if not isinstance(value, ast.Call):
        return False
    is_kept = isinstance(value.func, ast.Attribute) and value.func.attr == "run_until_complete"
    return is_kept or project.called(value, module.top) in RUNS


def invoked_graphs(project: Project) -> Iterator[Finding]:
    """HL119: a coroutine calls a graph's blocking method."""
    for scope in project.scopes:
        if not scope.is_async:
            continue
        for node in scope.own:
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr in ("invoke", "stream") and _is_graph(project, node.func.value, scope):
                message = (
                    f"{node.func.attr}() blocks the loop that runs {scope.label}(), and what its nodes wait for"
                )
                yield found("HL119", scope, node, message)


def _is_graph(project: Project, node: ast.expr, scope: Scope) -> bool:
    target = project.resolve(node, scope)
    values: list[tuple[ast.expr | None, Scope]] = [(project.value_of(node, scope), scope)]
    if isinstance(target, Global):
        values = project.assigned(target)
    for value, at in values:
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr == "compile":
            builder = value.func.value
            made = project.value_of(builder, at)
            found_in = project.resolve(builder, at)
            if isinstance(found_in, Global):
                made, at = next(iter(project.assigned(found_in)), (None, at))
            maker = project.called(made, at)
            if isinstance(maker, str) and maker.startswith("langgraph."):
                return True
    return False
