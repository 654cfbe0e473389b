"""What calls a program's functions: Celery, web frameworks, models; and how often its own code does."""

import ast
from collections.abc import Container, Iterable
from dataclasses import dataclass
from functools import cached_property

from homeloop.cli._check._celery import Celery
from homeloop.cli._check._known import APPLICATIONS, ROUTES, SERVERS
from homeloop.cli._check._project import Project
from homeloop.cli._check._runs import Run
from homeloop.cli._check._source import Module, Scope

_MANY = 2
_LOOPS = (ast.For, ast.While, ast.AsyncFor, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


@dataclass(frozen=True, slots=True)
class Entry:
    """A function that is called again and again, by whom we do not see."""

    kind: str
    scope: Scope

    def __str__(self) -> str:
        return f"{self.kind} {self.scope.label}"


class Entries:
    """Finds who calls what."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._reachable = _Reachable(project)
        self._celery = Celery(project)
        self._entries = {
            scope: Entry(kind, scope) for scope in project.scopes if (kind := self._kind(scope)) is not None
        }

    def of(self, scope: Scope) -> Entry | None:
        """Return the entry that a function is, or that calls it, be it through others."""
        found = self._above(scope, self._entries)
        return None if found is None else self._entries[found]

    def is_hosted(self, scope: Scope) -> bool:
        """Say whether a coroutine of a server's loop comes to a function, here or on a thread."""
        return self._above(scope, self.hosted) is not None

    def is_on_thread(self, scope: Scope) -> bool:
        """Say whether a function is given to a thread, itself or through those that call it."""
        return self._above(scope, self._project.on_threads) is not None

    def _above(self, scope: Scope, wanted: Container[Scope]) -> Scope | None:
        """Return the nearest wanted one of a function and those that call it, here or on a thread."""
        seen, waiting = {scope}, [scope]
        while waiting:
            at = waiting.pop(0)
            if at in wanted:
                return at
            callers = [caller for caller, _ in self._project.callers.get(at, ())]
            callers += [each.by for each in self._project.handed if each.function is at]
            for caller in callers:
                if caller not in seen:
                    seen.add(caller)
                    waiting.append(caller)
        return None

    @cached_property
    def hosted(self) -> set[Scope]:
        """Coroutine functions that a server calls on its one loop."""
        return {scope for scope in self._project.scopes if scope.is_async and self._is_hosted(scope)}

    def _is_hosted(self, scope: Scope) -> bool:
        for decorator in scope.decorators:
            named = decorator.func if isinstance(decorator, ast.Call) else decorator
            if isinstance(named, ast.Attribute) and named.attr in (*ROUTES, "middleware", "on_event", "websocket"):
                return self._project.origin(named.value, scope.parent or scope) in SERVERS
        return False

    def is_task(self, scope: Scope) -> bool:
        """Say whether a function is a Celery task."""
        return scope in self._entries and self._entries[scope].kind == "Celery task"

    def is_endpoint(self, scope: Scope) -> bool:
        """Say whether a function is an endpoint of FastAPI or Flask."""
        return scope in self._entries and self._entries[scope].kind == "endpoint"

    def _kind(self, scope: Scope) -> str | None:
        if self._celery.is_task(scope):
            return "Celery task"
        for decorator in scope.decorators:
            named = decorator.func if isinstance(decorator, ast.Call) else decorator
            target = self._project.resolve(named, scope.parent or scope)
            if target == "dramatiq.actor":
                return "actor"
            if self._is_route(named, scope):
                return "endpoint"
        if scope.owner is not None and scope.qualname.endswith(".predict"):
            bases = [self._project.resolve(base, scope.owner.scope) for base in scope.owner.node.bases]
            if "mlflow.pyfunc.PythonModel" in bases or "mlflow.pyfunc.model.PythonModel" in bases:
                return "model's"
        return None

    def _is_route(self, named: ast.expr, scope: Scope) -> bool:
        """Say whether a decorator makes an endpoint of a function that is called outside of loops."""
        if scope.is_async and scope not in self._project.implicit:
            return False
        if not isinstance(named, ast.Attribute) or named.attr not in ROUTES:
            return False
        made = self._project.origin(named.value, scope.parent or scope)
        return made is not None and made in APPLICATIONS

    def times(self, runs: Iterable[Run]) -> int:
        """Return how often a module, as a program, executes any of these runs: 0, 1 or 2, which is many."""
        made = {run.made for run in runs}
        modules = dict.fromkeys(module for each in made for module in self._programs.get(each, ()))
        return max((_Count(self._project, made, self._reachable).of(module.top) for module in modules), default=0)

    @cached_property
    def _programs(self) -> dict[ast.AST, list[Module]]:
        """For what makes a loop the modules that, as programs, may come to it."""
        found: dict[ast.AST, list[Module]] = {}
        for module in self._project.modules:
            for made in self._reachable.from_scope(module.top):
                found.setdefault(made, []).append(module)
        return found


class _Reachable:
    """Which runs code may come to: most code comes to none of those that are counted."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self.handed = {each.call: each for each in project.handed}
        self._positions: dict[Scope, dict[ast.AST, list[int]]] = {}
        self._direct: dict[Scope, tuple[set[ast.AST], set[Scope]]] = {}
        self._of_scope: dict[Scope, set[ast.AST]] = {}
        self._of_node: dict[ast.AST, set[ast.AST]] = {}

    def from_statement(self, node: ast.stmt, scope: Scope) -> set[ast.AST]:
        """Return the calls of the runs that a statement may come to, through the functions that it calls."""
        if node not in self._of_node:
            runs, called = self._seen(ast.walk(node), scope)
            self._of_node[node] = runs.union(*map(self.from_scope, called))
        return self._of_node[node]

    def statements(self, body: list[ast.stmt], scope: Scope, runs: set[ast.AST]) -> list[ast.stmt]:
        """Return those of a function's statements that may come to one of the runs."""
        if scope not in self._positions:
            found = self._positions[scope] = {}
            for position, statement in enumerate(body):
                for run in self.from_statement(statement, scope):
                    found.setdefault(run, []).append(position)
        known = self._positions[scope]
        return [body[each] for each in sorted({each for run in runs for each in known.get(run, ())})]

    def from_scope(self, scope: Scope) -> set[ast.AST]:
        """Return the calls of the runs that a function may come to, through those that it calls."""
        if scope not in self._of_scope:
            seen, waiting, found = {scope}, [scope], set[ast.AST]()
            while waiting:
                at = waiting.pop()
                if at not in self._direct:
                    self._direct[at] = self._seen(at.own, at)
                runs, called = self._direct[at]
                found |= runs
                waiting += called - seen
                seen |= called
            self._of_scope[scope] = found
        return self._of_scope[scope]

    def _seen(self, nodes: Iterable[ast.AST], scope: Scope) -> tuple[set[ast.AST], set[Scope]]:
        runs, called = set[ast.AST](), set[Scope]()
        for node in nodes:
            if isinstance(node, ast.Call):
                given = self.handed.get(node)
                target = self._project.called(node, scope) if given is None else given.function
                if node in self._project.made_loops:
                    runs.add(node)
                if isinstance(target, Scope):
                    called.add(target)
                    implicit = self._project.implicit.get(target)
                    if implicit is not None:
                        runs.add(implicit.made)
        return runs, called


class _Count:
    """Follows a module's code: branches of an if exclude each other, a loop is many."""

    def __init__(self, project: Project, runs: set[ast.AST], reachable: _Reachable) -> None:
        self._project = project
        self._runs = runs
        self._reachable = reachable
        self._known: dict[Scope, int] = {}

    def of(self, scope: Scope) -> int:
        if scope not in self._known:
            self._known[scope] = 0  # a recursion adds nothing
            body = scope.node.body
            if isinstance(body, list):
                self._known[scope] = self._sequence(self._reachable.statements(body, scope, self._runs), scope)
            else:
                self._known[scope] = self._node(body, scope)
        return self._known[scope]

    def _sequence(self, body: list[ast.stmt], scope: Scope) -> int:
        total = 0
        for position, statement in enumerate(body):
            if isinstance(statement, ast.If) and _leaves(statement.body):
                rest = statement.orelse + body[position + 1 :]
                total += self._node(statement.test, scope)
                return min(_MANY, total + max(self._sequence(statement.body, scope), self._sequence(rest, scope)))
            total += self._node(statement, scope)
        return min(_MANY, total)

    def _node(self, node: ast.AST, scope: Scope) -> int:
        if isinstance(node, _DEFINITIONS):
            return 0
        if isinstance(node, ast.stmt) and self._runs.isdisjoint(self._reachable.from_statement(node, scope)):
            return 0
        if isinstance(node, ast.If):
            branches = max(self._sequence(node.body, scope), self._sequence(node.orelse, scope))
            return min(_MANY, self._node(node.test, scope) + branches)
        if isinstance(node, ast.IfExp):
            return max(self._node(node.body, scope), self._node(node.orelse, scope))
        if isinstance(node, ast.Match):
            return max((self._sequence(case.body, scope) for case in node.cases), default=0)
        if isinstance(node, ast.Try):
            handlers = max((self._sequence(each.body, scope) for each in node.handlers), default=0)
            tried = max(self._sequence(node.body + node.orelse, scope), handlers)
            return min(_MANY, tried + self._sequence(node.finalbody, scope))
        inside = sum(self._node(child, scope) for child in ast.iter_child_nodes(node))
        if isinstance(node, _LOOPS):
            return min(_MANY, inside * _MANY)
        if isinstance(node, ast.Call):
            inside += self._call(node, scope)
        return min(_MANY, inside)

    def _call(self, node: ast.Call, scope: Scope) -> int:
        if node in self._runs:
            return 1
        target = self._project.called(node, scope)
        if isinstance(target, Scope):
            implicit = self._project.implicit.get(target)
            starts = implicit is not None and implicit.made in self._runs
            return min(_MANY, self.of(target) + starts)
        handed = self._reachable.handed.get(node)
        if handed is None:
            return 0
        many = isinstance(node.func, ast.Attribute) and node.func.attr == "map"
        return self.of(handed.function) * (_MANY if many else 1)


def _leaves(body: list[ast.stmt]) -> bool:
    """Say whether a block ends the function."""
    return bool(body) and isinstance(body[-1], ast.Return | ast.Raise)
