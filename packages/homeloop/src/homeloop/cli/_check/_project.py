"""All modules that are checked together, and what runs on which loop."""

import ast
from collections.abc import Iterator

from homeloop.cli._check._runs import Run, Runs
from homeloop.cli._check._source import Scope


class Project(Runs):
    """Modules that import each other."""

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

    def coroutines(self, run: Run) -> list[Scope]:
        """Return our functions that run on the loop of a run."""
        starts = list(run.functions)
        for at, coroutine in run.coroutines:
            value = self.value_of(coroutine, at)
            parts = [coroutine] if value is None or value is coroutine else [coroutine, value]
            starts += [scope for part in parts for scope, _ in self.functions_in(part, at)]
        return self.reached(starts)


def _body(scope: Scope) -> list[ast.AST]:
    return [scope.node.body] if isinstance(scope.node, ast.Lambda) else list(scope.node.body)
