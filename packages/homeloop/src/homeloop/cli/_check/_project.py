"""All modules that are checked together: what a name means across them, and which function calls which."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from homeloop.cli._check._known import RUNS
from homeloop.cli._check._source import Class, Module, Scope

_MAX_HOPS = 6  # through re-exports

STATE = "<state>."
"""Precedes the name of what an application keeps in its ``state``."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name of a module, or of a class (``Class.name``): what several functions may share."""

    module: Module
    name: str


Target = Scope | Class | Global | str
"""What a name stands for: ours, or the dotted name of somebody else's."""


@dataclass(eq=False, frozen=True, slots=True)
class Handed:
    """A function that is given to another thread, with what it will be called with."""

    function: Scope
    arguments: tuple[ast.expr, ...]
    by: Scope
    call: ast.Call


@dataclass(eq=False, frozen=True, slots=True)
class Run:
    """A call that starts a loop and ends it; ``coroutine`` is what runs on it."""

    scope: Scope
    call: ast.Call
    coroutine: ast.expr | None


class Project:
    """Modules that import each other."""

    def __init__(self, modules: list[Module]) -> None:
        self.modules = modules
        self._resolved: dict[tuple[ast.AST, Scope], Target | None] = {}
        self._by_name: dict[str, Module] = {}
        for module in modules:
            for name in module.names:
                self._by_name.setdefault(name, module)

    @property
    def scopes(self) -> Iterator[Scope]:
        for module in self.modules:
            yield from module.scopes

    # What names mean

    def resolve(self, node: ast.AST, scope: Scope) -> Target | None:
        """Say what an expression of names and dots stands for; None if that is not known."""
        if not isinstance(node, ast.Name | ast.Attribute | ast.Lambda):
            return None
        key = (node, scope)
        if key not in self._resolved:
            self._resolved[key] = None  # of what is defined by itself, nothing is known
            self._resolved[key] = self._resolve(node, scope)
        return self._resolved[key]

    def _resolve(self, node: ast.Name | ast.Attribute | ast.Lambda, scope: Scope) -> Target | None:
        if isinstance(node, ast.Name):
            return self._name(node.id, scope)
        if isinstance(node, ast.Lambda):
            return scope.lambdas.get(node)
        if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls") and scope.owner is not None:
            return self._member(scope.owner, node.attr)
        if isinstance(node.value, ast.Attribute) and node.value.attr == "state":
            return f"{STATE}{node.attr}"  # app.state.pool, request.app.state.pool: the same
        made = self.called(self.value_of(node.value, scope), scope)
        if isinstance(made, Class):
            return self._member(made, node.attr)
        return self._attribute(self.resolve(node.value, scope), node.attr)

    def called(self, call: ast.AST | None, scope: Scope) -> Target | None:
        """Say what a call calls."""
        return self.resolve(call.func, scope) if isinstance(call, ast.Call) else None

    def value_of(self, node: ast.expr, scope: Scope) -> ast.expr | None:
        """Return the one expression that a local or closure's name was assigned, or the expression itself."""
        if not isinstance(node, ast.Name):
            return node
        holder = self.holder_of(node.id, scope)
        if holder is None:
            return None
        values = [value for value in holder.names[node.id] if not _is_none(value)]
        return values[0] if len(values) == 1 else None

    def assigned(self, found: Global) -> list[ast.expr | None]:
        """Return what a module's or a class's name is bound to in its own body."""
        owner, _, name = found.name.rpartition(".")
        if not owner:
            return found.module.top.names.get(name, [])
        made = found.module.top.classes.get(owner)
        return [] if made is None else made.names.get(name, [])

    def holder_of(self, name: str, scope: Scope) -> Scope | None:
        """Return the function, this one or an outer one, that binds a local name."""
        at: Scope | None = scope
        while at is not None:
            if name in at.names and name not in at.global_names:
                return at
            at = at.parent
        return None

    def _name(self, name: str, scope: Scope) -> Target | None:
        at: Scope | None = scope
        while at is not None:
            if name not in at.global_names:
                if name in at.functions:
                    return at.functions[name]
                if name in at.classes:
                    return at.classes[name]
                if name in at.imports:
                    return self._import(at.imports[name])
                if name in at.names:
                    return Global(at.module, name) if at.parent is None else self._alias(at.names[name], at)
            at = at.parent
        return Global(scope.module, name) if name in scope.module.declared else None

    def _alias(self, values: list[ast.expr | None], scope: Scope) -> Target | None:
        """Follow a local name that stands for another one."""
        (value, *more) = values
        if more or not isinstance(value, ast.Name | ast.Attribute) or isinstance(value.ctx, ast.Store):
            return None
        root: ast.expr = value
        while isinstance(root, ast.Attribute):
            root = root.value
        if isinstance(root, ast.Name) and root.id in scope.names:
            return None
        return self.resolve(value, scope)

    def _member(self, owner: Class, name: str, hops: int = 0) -> Target | None:
        if name in owner.methods:
            return owner.methods[name]
        if name in owner.names:
            return Global(owner.scope.module, f"{owner.qualname}.{name}")
        if hops < _MAX_HOPS:
            for base in owner.node.bases:
                above = self.resolve(base, owner.scope)
                if isinstance(above, Class) and above is not owner:
                    found = self._member(above, name, hops + 1)
                    if found is not None:
                        return found
        return None

    def _attribute(self, target: Target | None, name: str, hops: int = 0) -> Target | None:
        if isinstance(target, str):
            return self._import(f"{target}.{name}", hops + 1)
        if isinstance(target, Class):
            return self._member(target, name)
        if isinstance(target, Global):
            made = self.class_of(target)
            return self._member(made, name) if made is not None else None
        return None

    def class_of(self, found: Global) -> Class | None:
        """Return our class, if a global is bound once, to an instance of it."""
        values = [value for value in self.assigned(found) if not _is_none(value)]
        if len(values) != 1 or not isinstance(values[0], ast.Call):
            return None
        made = self.called(values[0], found.module.top)
        return made if isinstance(made, Class) else None

    def _import(self, dotted: str, hops: int = 0) -> Target:
        """Find a dotted name among our modules; else it is somebody else's."""
        parts = dotted.split(".")
        if hops > _MAX_HOPS:
            return dotted
        for cut in range(len(parts), 0, -1):
            module = self._by_name.get(".".join(parts[:cut]))
            if module is None:
                continue
            rest = parts[cut:]
            if not rest:
                return dotted
            found = self._of_module(module, rest[0], hops)
            for name in rest[1:]:
                found = self._attribute(found, name, hops)
            return dotted if found is None else found
        return dotted

    def _of_module(self, module: Module, name: str, hops: int) -> Target | None:
        top = module.top
        if name in top.functions:
            return top.functions[name]
        if name in top.classes:
            return top.classes[name]
        if name in top.imports:
            return self._import(top.imports[name], hops + 1)
        return Global(module, name) if name in top.names or name in module.declared else None

    # Who calls whom

    def functions_in(self, node: ast.AST, scope: Scope) -> Iterator[tuple[Scope, ast.AST]]:
        """Yield our functions that an expression calls or hands on, except to another thread or loop."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            return
        if isinstance(node, ast.Call) and self.leaves_loop(node, scope):
            return
        if isinstance(node, ast.Lambda):
            yield scope.lambdas[node], node
            return
        if isinstance(node, ast.Name | ast.Attribute):
            target = self.resolve(node, scope)
            if isinstance(target, Scope):
                yield target, node
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.expr_context):
                yield from self.functions_in(child, scope)

    @cached_property
    def calls(self) -> dict[Scope, list[tuple[Scope, ast.Call]]]:
        """For each function those of ours that it calls itself, here and now."""
        found: dict[Scope, list[tuple[Scope, ast.Call]]] = {}
        for scope in self.scopes:
            for node in scope.own:
                target = self.called(node, scope)
                if isinstance(target, Scope) and isinstance(node, ast.Call):
                    found.setdefault(scope, []).append((target, node))
        return found

    @cached_property
    def callers(self) -> dict[Scope, list[tuple[Scope, ast.Call]]]:
        """For each function those that call it."""
        found: dict[Scope, list[tuple[Scope, ast.Call]]] = {}
        for scope, called in self.calls.items():
            for target, call in called:
                found.setdefault(target, []).append((scope, call))
        return found

    def reached(self, starts: Iterator[Scope] | list[Scope]) -> list[Scope]:
        """Return all functions that run on the same loop, once these do."""
        found: dict[Scope, None] = {}
        waiting = list(starts)
        while waiting:
            scope = waiting.pop()
            if scope in found:
                continue
            found[scope] = None
            for statement in _body(scope):
                waiting += [target for target, _ in self.functions_in(statement, scope)]
        return list(found)

    def leaves_loop(self, call: ast.Call, scope: Scope) -> bool:
        """Say whether what a call is given runs on another thread or loop than the caller's."""
        target = self.called(call, scope)
        if isinstance(target, str):
            if target in ("asyncio.to_thread", "asyncio.run_coroutine_threadsafe", "threading.Thread"):
                return True
            return target.startswith(("homeloop.", "anyio.to_thread.", "anyio.from_thread."))
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        return name in ("run_in_executor", "submit") and not isinstance(target, Scope)

    @cached_property
    def handed(self) -> list[Handed]:
        """All functions of ours that are given to another thread."""
        return [handed for scope in self.scopes for node in scope.own for handed in self._handed(node, scope)]

    def _handed(self, node: ast.AST, scope: Scope) -> Iterator[Handed]:
        if not isinstance(node, ast.Call):
            return
        given = self.given_to_thread(node, scope)
        if given is not None:
            function, arguments = given
            target = self.resolve(function, scope)
            if isinstance(target, Scope):
                yield Handed(target, arguments, scope, node)

    def given_to_thread(self, call: ast.Call, scope: Scope) -> tuple[ast.expr, tuple[ast.expr, ...]] | None:
        """Return what a call runs on another thread, and with which arguments."""
        target = self.called(call, scope)
        arguments = tuple(call.args)
        if target in ("asyncio.to_thread", "anyio.to_thread.run_sync", "starlette.concurrency.run_in_threadpool"):
            return (arguments[0], arguments[1:]) if arguments else None
        if target in ("threading.Thread", "threading.Timer"):
            keywords = {each.arg: each.value for each in call.keywords}
            function = keywords.get("target" if target == "threading.Thread" else "function")
            if function is None and target == "threading.Timer" and len(arguments) > 1:
                function = arguments[1]
            passed = keywords.get("args")
            items = tuple(passed.elts) if isinstance(passed, ast.Tuple | ast.List) else ()
            return None if function is None else (function, items)
        if not isinstance(call.func, ast.Attribute):
            return None
        if call.func.attr == "run_in_executor" and len(arguments) > 1:
            return arguments[1], arguments[2:]
        if call.func.attr in ("submit", "map") and arguments and self._is_thread_pool(call.func.value, scope):
            return arguments[0], arguments[1:] if call.func.attr == "submit" else ()
        return None

    def _is_thread_pool(self, node: ast.expr, scope: Scope) -> bool:
        value = self.value_of(node, scope)
        made = self.called(value, scope) if value is not None else None
        return made in ("concurrent.futures.ThreadPoolExecutor", "concurrent.futures.thread.ThreadPoolExecutor")

    @cached_property
    def run_calls(self) -> set[ast.AST]:
        """The calls of `runs`."""
        return {run.call for run in self.runs}

    @cached_property
    def runs(self) -> list[Run]:
        """All calls that make a loop, run a coroutine on it and leave the loop behind."""
        return [run for scope in self.scopes for node in scope.own if (run := self._run(node, scope)) is not None]

    def _run(self, node: ast.AST, scope: Scope) -> Run | None:
        if not isinstance(node, ast.Call):
            return None
        target, first = self.called(node, scope), node.args[0] if node.args else None
        if target in RUNS:
            return Run(scope, node, first)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "run_until_complete":
            # A loop that a function makes for itself; what a module keeps is one loop for all.
            loop = node.func.value
            is_modules = isinstance(loop, ast.Name) and self.holder_of(loop.id, scope) is scope.module.top
            maker = None if is_modules and scope.parent else self.called(self.value_of(loop, scope), scope)
            if maker in ("asyncio.new_event_loop", "uvloop.new_event_loop"):
                return Run(scope, node, first)
        if isinstance(node.func, ast.Call) and self.called(node.func, scope) == "asgiref.sync.async_to_sync":
            return Run(scope, node, node.func.args[0] if node.func.args else None)
        return None

    def coroutines(self, run: Run) -> list[Scope]:
        """Return our functions that run on the loop of a run."""
        if run.coroutine is None:
            return []
        value = self.value_of(run.coroutine, run.scope)
        parts = [run.coroutine] if value is None or value is run.coroutine else [run.coroutine, value]
        starts = [scope for part in parts for scope, _ in self.functions_in(part, run.scope)]
        return self.reached(starts)


def _body(scope: Scope) -> list[ast.AST]:
    return [scope.node.body] if isinstance(scope.node, ast.Lambda) else list(scope.node.body)


def _is_none(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is None
