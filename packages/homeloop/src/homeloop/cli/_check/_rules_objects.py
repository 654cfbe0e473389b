"""Rules on Celery tasks, on savers, and on what threads touch."""

import ast
from collections.abc import Iterator
from typing import TypeGuard

from homeloop.cli._check._celery import Celery
from homeloop.cli._check._findings import Finding, found
from homeloop.cli._check._known import MANAGERS, TOUCHES
from homeloop.cli._check._names import Global
from homeloop.cli._check._project import Project
from homeloop.cli._check._shared import SharedObjects
from homeloop.cli._check._source import Scope
from homeloop.cli._check._threads import Handed

_ASYNC_CELERY = ("celery_aio_pool", "celery_pool_asyncio", "homeloop.adapters.celery")
_GIVEN_AS = frozenset(("checkpointer", "store"))


def async_tasks(project: Project) -> Iterator[Finding]:
    """HL105: a Celery task is a coroutine function, and nothing in the project makes Celery run those."""
    imported = {name for scope in project.scopes for name in scope.imports.values()}
    if any(name.startswith(_ASYNC_CELERY) for name in imported):
        return
    celery = Celery(project)
    for scope in project.scopes:
        if not scope.is_async or not scope.decorators or not celery.is_task(scope):
            continue
        innermost = scope.decorators[-1]
        named = innermost.func if isinstance(innermost, ast.Call) else innermost
        if not celery.is_decorator(named, scope.parent or scope):
            continue  # another decorator may make it a sync function
        if isinstance(innermost, ast.Call) and any(keyword.arg == "base" for keyword in innermost.keywords):
            continue
        yield found(
            "HL105", scope, scope.node, f"Celery calls {scope.label}() and takes the coroutine for its result"
        )


def savers(project: Project) -> Iterator[Finding]:
    """HL106: a saver's context manager is used as if it were the saver."""
    for scope in project.scopes:
        for node in scope.own:
            if not isinstance(node, ast.Call):
                continue
            target = project.called(node, scope)
            if isinstance(target, str) and target in MANAGERS and _is_not_entered(node, scope):
                name = target.split(".")[-2]
                message = f"{name}.from_conn_string() returns a context manager, which is not entered"
                yield found("HL106", scope, node, message)


def _is_not_entered(call: ast.Call, scope: Scope) -> bool:
    above = scope.module.parents.get(call)
    if isinstance(above, ast.Await):
        return True
    if isinstance(above, ast.keyword):
        return above.arg in _GIVEN_AS
    if isinstance(above, ast.withitem):
        return isinstance(scope.module.parents.get(above), ast.With)
    if isinstance(above, ast.Assign) and isinstance(above.targets[0], ast.Name):
        return _is_used_as_saver(above.targets[0].id, scope)
    return False


def _is_used_as_saver(name: str, scope: Scope) -> bool:
    used = False
    for at in scope.module.scopes:
        for node in at.own:
            if not (isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)):
                continue
            above = at.module.parents.get(node)
            if isinstance(above, ast.withitem | ast.Call):
                return False  # entered, or given to somebody who may enter it
            if isinstance(above, ast.Attribute):
                if above.attr in ("__aenter__", "__enter__"):
                    return False
                used = True
            if isinstance(above, ast.keyword) and above.arg in _GIVEN_AS:
                used = True
    return used


def used_after_block(project: Project) -> Iterator[Finding]:
    """HL115: what an ``async with`` closes is returned out of it."""
    objects = SharedObjects(project)
    for scope in project.scopes:
        for node in scope.own:
            if not isinstance(node, ast.AsyncWith):
                continue
            for item in node.items:
                name = item.optional_vars.id if isinstance(item.optional_vars, ast.Name) else None
                if name is None or not _ends_with_block(project, objects, item, scope):
                    continue
                for inner in _own_code(node.body):
                    if isinstance(inner, ast.Return) and inner.value is not None and _hands_out(inner.value, name):
                        yield found(
                            "HL115",
                            scope,
                            inner,
                            f"`{name}` is closed when its block ends, which this return does",
                            (scope, item.context_expr, "it lives from here to the end of the block"),
                        )


def _ends_with_block(project: Project, objects: SharedObjects, item: ast.withitem, scope: Scope) -> bool:
    call = item.context_expr
    if not isinstance(call, ast.Call):
        return False
    target = project.called(call, scope)
    if target in MANAGERS or target in ("httpx.AsyncClient", "aiohttp.ClientSession"):
        return True
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in ("acquire", "connection", "connect"):
        return False
    holder = project.resolve(call.func.value, scope)
    if isinstance(holder, Global):
        return any(objects.made_by(value, at) for value, at in project.assigned(holder))
    value = project.value_of(call.func.value, scope)
    return value is not None and objects.made_by(value, scope) is not None


def _hands_out(value: ast.expr, name: str) -> bool:
    if isinstance(value, ast.Name):
        return value.id == name
    if isinstance(value, ast.Tuple):
        return any(_hands_out(each, name) for each in value.elts)
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr == "compile":
        return any(each.arg in _GIVEN_AS and _hands_out(each.value, name) for each in value.keywords)
    return False


def _own_code(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Yield all nodes of a block but those of functions inside."""
    waiting: list[ast.AST] = list(body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


def touched_from_thread(project: Project) -> Iterator[Finding]:
    """HL111: a queue, event or loop is touched by a function that runs on another thread."""
    seen: set[ast.AST] = set()
    for handed in project.handed:
        on_thread = _on_thread(project, handed.function)
        for scope in on_thread:
            for node in scope.own:
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)) or node in seen:
                    continue
                arguments = _arguments(handed) if scope is handed.function else {}
                if _is_made_there(project, node.func.value, scope, on_thread):
                    continue
                what = _loop_bound(project, node.func.value, scope, handed, arguments)
                if what is not None and node.func.attr in TOUCHES[what]:
                    seen.add(node)
                    yield found(
                        "HL111",
                        scope,
                        node,
                        f"{_named(what)}.{node.func.attr}() is called on another thread than the loop's",
                        (handed.by, handed.call, "it is given to a thread here"),
                    )
    for scope in project.scopes:
        for node in scope.own:
            given = project.given_to_thread(node, scope) if isinstance(node, ast.Call) else None
            if given is not None and isinstance(given[0], ast.Attribute):
                what = _maker(project, given[0].value, scope)
                if what is not None and given[0].attr in TOUCHES[what]:
                    message = f"{_named(what)}.{given[0].attr}() is given to another thread than the loop's"
                    yield found("HL111", scope, given[0], message)


def _on_thread(project: Project, function: Scope) -> list[Scope]:
    """Return the sync functions that run on the thread that a function is given to."""
    if function.is_async:
        return []
    found_scopes, waiting = [function], [function]
    for at in waiting:
        for target, _ in project.calls.get(at, ()):
            if not target.is_async and target not in found_scopes:
                found_scopes.append(target)
                waiting.append(target)
    return found_scopes


def _is_made_there(project: Project, node: ast.expr, scope: Scope, on_thread: list[Scope]) -> bool:
    """Say whether an object, that a name stands for, is made on the thread that touches it."""
    target = project.resolve(node, scope)
    return isinstance(target, Global) and any(at in on_thread for _, at in project.assigned(target))


def _arguments(handed: Handed) -> dict[str, ast.expr]:
    names = handed.function.parameters
    if handed.function.owner is not None and names[:1] == ["self"]:
        names = names[1:]
    return dict(zip(names, handed.arguments, strict=False))


def _loop_bound(
    project: Project, node: ast.expr, scope: Scope, handed: Handed, arguments: dict[str, ast.expr]
) -> str | None:
    if isinstance(node, ast.Name) and node.id in arguments:
        return _maker(project, arguments[node.id], handed.by)
    if _is_own(node) and node.attr in handed.attributes:
        return _maker(project, handed.attributes[node.attr], handed.by)
    if isinstance(node, ast.Name) and node.id in scope.names:
        return None  # made on the thread itself
    return _maker(project, node, scope)


def _is_own(node: ast.expr) -> TypeGuard[ast.Attribute]:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


def _maker(project: Project, node: ast.expr, scope: Scope) -> str | None:
    """Return what made an object, if it is one of those that only the loop's thread may touch."""
    target = project.resolve(node, scope)
    values: list[tuple[ast.expr | None, Scope]] = []
    if isinstance(target, Global):
        values = project.assigned(target)
    elif isinstance(node, ast.Name):
        values = [(project.value_of(node, scope), scope)]
    return next(filter(None, (_kind(project, value, at) for value, at in values)), None)


def _kind(project: Project, value: ast.expr | None, scope: Scope) -> str | None:
    if not isinstance(value, ast.Call):
        return None
    made = project.called(value, scope)
    if made is None and isinstance(node := value.func, ast.Name):
        made = project.resolve(node, scope.parent or scope)
    if made in ("asyncio.get_running_loop", "asyncio.get_event_loop"):
        return "loop"
    if isinstance(value.func, ast.Attribute) and value.func.attr == "create_future":
        return "future"
    return made if isinstance(made, str) and made in TOUCHES else None


def _named(what: str) -> str:
    return {"loop": "the loop", "future": "asyncio.Future"}.get(what, what)
