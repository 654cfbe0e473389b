"""Rules on loops that are started, asked for, or waited for in the wrong place."""

import ast
from collections.abc import Iterator

from homeloop.cli._check._entries import Entries
from homeloop.cli._check._findings import Finding, found
from homeloop.cli._check._known import CLOSINGS, NEED_A_LOOP
from homeloop.cli._check._project import Project
from homeloop.cli._check._source import Scope

_ASKS_FIRST = frozenset(
    (
        "_get_running_loop",
        "current_async_library",
        "get_ident",
        "get_running_loop",
        "in_async_context",
        "is_running",
    )
)


def run_inside_loop(project: Project) -> Iterator[Finding]:
    """HL108: a loop is started by code that a coroutine calls."""
    runs = {
        run.call for run in project.runs if run.through is None and not run.is_elsewhere and not run.is_implicit
    }
    starts = {
        scope: node
        for scope in project.scopes
        for node in scope.own
        if isinstance(node, ast.Call) and (node in runs or _runs_until_complete(project, node, scope))
    }
    for scope, call in starts.items():
        if scope.is_async:
            if not _asks_first(scope):
                yield found("HL108", scope, call, f"a loop is started inside the coroutine {scope.label}()")
            continue
        yield from _on_running_loop("HL108", project, scope, call, "starts a loop", may_ask=False)


def _runs_until_complete(project: Project, call: ast.Call, scope: Scope) -> bool:
    """Say whether a call is a loop's: our own classes' methods, and those that are awaited, only have the name."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr != "run_until_complete":
        return False
    is_awaited = isinstance(scope.module.parents.get(call), ast.Await)
    return not is_awaited and not isinstance(project.called(call, scope), Scope)


def _asks_first(scope: Scope) -> bool:
    """Say whether a function looks whether a loop runs, before it does anything about it."""
    return any(
        (isinstance(node, ast.Name) and node.id in _ASKS_FIRST)
        or (isinstance(node, ast.Attribute) and node.attr in _ASKS_FIRST)
        for node in scope.own
    )


def _on_running_loop(
    code: str, project: Project, scope: Scope, node: ast.AST, does: str, *, may_ask: bool
) -> Iterator[Finding]:
    """Report what a sync function does if a coroutine calls it and it does not look whether a loop runs."""
    caller = None if _asks_first(scope) else _async_caller(project, scope, may_ask=may_ask)
    if caller is not None:
        at, through = caller
        message = f"{scope.label}() {does}, but the coroutine {at.label}() calls it on a running one"
        yield found(code, scope, node, message, (at, through, "called here"))


def _async_caller(project: Project, scope: Scope, *, may_ask: bool) -> tuple[Scope, ast.Call] | None:
    """
    Return the coroutine function that calls a sync function, be it through others, and the call.

    Args:
        may_ask: Whether those count that look whether a loop runs.
    """
    seen, waiting = {scope}, [scope]
    for at in waiting:
        for caller, call in project.callers.get(at, ()):
            if not may_ask and _asks_first(caller):
                continue
            if caller.is_async:
                return caller, call
            if caller not in seen and caller.parent is not None:
                seen.add(caller)
                waiting.append(caller)
    return None


def waits_for_own_loop(project: Project) -> Iterator[Finding]:
    """HL107: a loop's own thread waits for what it has asked the loop to do."""
    for scope in project.scopes:
        for node in scope.own:
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr != "result" or _is_done_first(scope, node):
                continue
            asked = project.value_of(node.func.value, scope)
            if asked is None or project.called(asked, scope) != "asyncio.run_coroutine_threadsafe":
                continue
            if scope.is_async or _is_own_loop(project, asked, scope):
                yield found(
                    "HL107", scope, node, f"{scope.label}() blocks the thread of the loop that it waits for"
                )
                continue
            yield from _on_running_loop("HL107", project, scope, node, "waits for a loop", may_ask=True)


def _is_done_first(scope: Scope, call: ast.Call) -> bool:
    """Say whether the future is awaited or asked whether it is done before."""
    assert isinstance(call.func, ast.Attribute)
    if not isinstance(call.func.value, ast.Name):
        return False
    name = call.func.value.id
    for node in scope.own:
        if isinstance(node, ast.Attribute) and node.attr == "done" and _is_name(node.value, name):
            return True
        if isinstance(node, ast.Await) and any(_is_name(each, name) for each in ast.walk(node.value)):
            return True
    return False


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_own_loop(project: Project, asked: ast.expr, scope: Scope) -> bool:
    assert isinstance(asked, ast.Call)
    named = (each.value for each in asked.keywords if each.arg == "loop")
    loop = asked.args[1] if len(asked.args) > 1 else next(named, None)
    if loop is None:
        return False
    if isinstance(loop, ast.Name) and loop.id not in scope.names:
        return False  # a closure's: this function may run elsewhere
    value = project.value_of(loop, scope)
    return value is not None and project.called(value, scope) == "asyncio.get_running_loop"


def needs_loop_at_import(project: Project) -> Iterator[Finding]:
    """HL110: what raises without a running loop is called when a module is imported."""
    for module in project.modules:
        for node in module.top.own:
            target = project.called(node, module.top)
            if isinstance(target, str) and target in NEED_A_LOOP:
                if any(isinstance(above, ast.Try) for above in module.ancestors(node)):
                    continue
                yield found("HL110", module.top, node, f"{target}() needs a running loop; at import there is none")


def no_loop_in_thread(project: Project) -> Iterator[Finding]:
    """HL112: a function asks for the current loop on a thread that has none."""
    if _has_own_policy(project):
        return  # which may make a loop for every thread
    entries = Entries(project)
    by_thread = {handed.function: (handed.by, handed.call) for handed in project.handed}
    for scope in project.scopes:
        where = by_thread.get(scope)
        if scope.is_async or (where is None and not entries.is_endpoint(scope)):
            continue
        names = {project.called(node, scope) for node in scope.own}
        if "asyncio.set_event_loop" in names:
            continue
        for node in scope.own:
            if project.called(node, scope) != "asyncio.get_event_loop":
                continue
            if any(isinstance(above, ast.Try) for above in scope.module.ancestors(node)):
                continue
            message = f"{scope.label}() runs on a thread that has no loop to get"
            others = () if where is None else ((where[0], where[1], "it is given to a thread here"),)
            yield found("HL112", scope, node, message, *others)


def _has_own_policy(project: Project) -> bool:
    """Say whether a policy is set that is neither asyncio's nor uvloop's."""
    for scope, call in project.sites.get("asyncio.set_event_loop_policy", ()):
        made = project.maker(call.args[0], scope) if call.args else None
        if not (isinstance(made, str) and made.startswith(("asyncio.", "uvloop."))):
            return True
    return False


def closed_in_new_loop(project: Project) -> Iterator[Finding]:
    """HL113: an exit hook or finalizer starts a loop to close what belongs to another one."""
    hooks: dict[Scope, tuple[Scope, ast.AST]] = {}
    for scope in project.scopes:
        if scope.owner is not None and scope.qualname.endswith(".__del__"):
            hooks[scope] = scope, scope.node
        for decorator in scope.decorators:
            if project.resolve(decorator, scope.parent or scope) == "atexit.register":
                hooks[scope] = scope, decorator
        for node in scope.own:
            if isinstance(node, ast.Call) and project.called(node, scope) == "atexit.register" and node.args:
                target = project.resolve(node.args[0], scope)
                if isinstance(target, Scope):
                    hooks[target] = scope, node
                elif target in ("asyncio.run",):
                    closing = node.args[1] if len(node.args) > 1 else None
                    if closing is not None and _closes(closing):
                        yield found("HL113", scope, node, "it is closed at exit, on a loop that is not its own")
    for run in project.runs:
        where = hooks.get(run.scope)
        if where is None:
            continue
        executed: list[ast.AST] = [coroutine for _, coroutine in run.coroutines]
        executed += [node for scope in project.coroutines(run) for node in scope.own]
        if any(map(_closes, executed)):
            yield found(
                "HL113",
                run.scope,
                run.call,
                "a new loop cannot close what was opened on another one",
                (where[0], where[1], "this runs at the end"),
            )


def _closes(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOSINGS


def patched_loops(project: Project) -> Iterator[Finding]:
    """HL114: asyncio is patched to let loops run inside loops."""
    for scope in project.scopes:
        for node in scope.own:
            target = project.called(node, scope)
            if target in ("nest_asyncio.apply", "nest_asyncio2.apply"):
                message = f"{target}() lets loops run inside each other, on asyncio's own loop only"
                yield found("HL114", scope, node, message)
