"""What starts a loop and leaves it behind: asyncio.run() and the like, helpers and decorators around them."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from homeloop.cli._check._known import LOOP_PER_CALL, ROUTES, RUNNERS, RUNS, WRAPPERS
from homeloop.cli._check._names import Global
from homeloop.cli._check._source import Class, Scope
from homeloop.cli._check._threads import Threads, argument

_MAX_RUNS = 10_000  # of a project: helpers that call each other make more of them

Written = tuple[Scope, ast.expr]
"""An expression, and the function in which it is written."""


@dataclass(eq=False, frozen=True, slots=True)
class Run:
    """
    Something that starts a loop, runs coroutines on it and leaves it behind.

    Attributes:
        scope: The function that does so, each time it is called.
        call: The call, decorator or method that does it.
        made: What makes the loop: counted once, whatever runs on it.
        coroutines: What runs on the loop.
        functions: Functions that run on it, besides.
        through: The call in a helper or decorator that starts the loop, if it is not this one itself.
        is_elsewhere: Whether the loop runs on another thread than the function.
    """

    scope: Scope
    call: ast.AST
    made: ast.AST
    coroutines: tuple[Written, ...]
    functions: tuple[Scope, ...] = ()
    through: tuple[Scope, ast.AST] | None = None
    is_elsewhere: bool = False

    @property
    def start(self) -> tuple[tuple[Scope, ast.AST, str], ...]:
        """Where the loop is started, to be shown beside a finding, if that is not the call itself."""
        return () if self.through is None else ((*self.through, "the loop is started here"),)

    @property
    def is_implicit(self) -> bool:
        """Whether to call the function is to start the loop."""
        return self.scope in self.functions


class Runs(Threads):
    """Modules, with the loops that they start and leave behind."""

    @cached_property
    def runs(self) -> list[Run]:
        """All that makes a loop, runs coroutines on it and leaves the loop behind."""
        direct = [run for scope in self.scopes for run in self._direct(scope)]
        direct += [run for scope in self.scopes for run in self._async_views(scope)]
        direct += [run for name in WRAPPERS for run in self._of_decorator(name, None)]
        # Those on other threads first: a helper that has both kinds is asked for by coroutines too, and may be.
        found = sorted(direct, key=lambda run: not run.is_elsewhere)
        seen = {run.call for run in found}
        for run in found:
            for derived in (*self._of_helper(run), *self._of_constructor(run), *self._of_task_class(run)):
                if derived.call not in seen and len(found) < _MAX_RUNS:
                    seen.add(derived.call)
                    found.append(derived)
        return found

    @cached_property
    def made_loops(self) -> set[ast.AST]:
        """What makes the loops of `runs`."""
        return {run.made for run in self.runs}

    @cached_property
    def implicit(self) -> dict[Scope, Run]:
        """The functions whose every call starts a loop: a decorator, or their host, does so."""
        return {run.scope: run for run in self.runs if run.is_implicit}

    # Loops that are started here

    def _direct(self, scope: Scope) -> Iterator[Run]:
        kept: dict[ast.AST, list[ast.Call]] = {}
        for node in scope.own:
            if not isinstance(node, ast.Call):
                continue
            target = self.called(node, scope)
            if isinstance(target, str) and target in RUNS:
                yield Run(scope, node, node, _written(scope, node.args[:1]))
                continue
            given = self.given_to_thread(node, scope)
            if given is not None and given[1] and self.resolve(given[0], scope) in RUNS:
                yield Run(scope, node, node, _written(scope, given[1][:1]), is_elsewhere=True)
                continue
            maker = self._loop_of(node, scope)
            if maker is not None:
                kept.setdefault(maker, []).append(node)
        for made, calls in kept.items():
            coroutines = [coroutine for call in calls for coroutine in call.args[:1]]
            yield Run(scope, calls[0], made, _written(scope, coroutines))

    def _loop_of(self, call: ast.Call, scope: Scope) -> ast.expr | None:
        """Return what made the loop on which a call runs something, if a function made it for itself."""
        if not isinstance(call.func, ast.Attribute) or call.func.attr not in RUNNERS:
            return None
        loop = call.func.value
        if isinstance(loop, ast.Name) and scope.parent and self.holder_of(loop.id, scope) is scope.module.top:
            return None  # what a module keeps is one loop for all
        value = self.value_of(loop, scope)
        made = self.maker(value, scope)
        return value if isinstance(made, str) and made in RUNNERS[call.func.attr] else None

    def _async_views(self, scope: Scope) -> Iterator[Run]:
        """Flask runs every call of an async view on a loop of its own."""
        for decorator in scope.decorators if scope.is_async else ():
            named = decorator.func if isinstance(decorator, ast.Call) else decorator
            if not isinstance(named, ast.Attribute) or named.attr not in ROUTES:
                continue
            if self.origin(named.value, scope.parent or scope) in LOOP_PER_CALL:
                yield Run(scope, decorator, decorator, (), (scope,))

    # Helpers and decorators around them

    def _of_helper(self, run: Run) -> Iterator[Run]:
        """Yield what starts the loop of a run too, by calling a function with what is to run on it."""
        for holder, names in self._forwarded(run).items():
            if holder is run.scope or self._calls_inside(holder, run.scope):
                yield from self._of_sites(run, holder, holder, names)
            elif self._hands_out(holder, run.scope):
                yield from self._of_decorator(holder, run.through or (run.scope, run.call))

    def _of_constructor(self, run: Run) -> Iterator[Run]:
        """Yield what starts the loop of a method's run, by making an object of what is to run on it."""
        kept, owner = self._kept_parameters(run), run.scope.owner
        if owner is None or not kept:
            return
        if owner.methods.get("__call__") is run.scope:
            yield from self._of_decorator(owner, run.through or (run.scope, run.call))
        else:
            yield from self._of_sites(run, owner, owner.methods["__init__"], kept)

    def _of_sites(self, run: Run, called: Scope | Class, function: Scope, parameters: list[str]) -> Iterator[Run]:
        """Yield calls of a function, or constructions of a class, that give it what is to run on a loop."""
        through = run.through or (run.scope, run.call)
        is_elsewhere = run.is_elsewhere or run.scope in self.on_threads
        for scope, call in self.sites.get(called, ()):
            given = [value for name in parameters if (value := argument(call, function, name)) is not None]
            if given:
                yield Run(scope, call, call, _written(scope, given), (), through, is_elsewhere)

    def _of_decorator(
        self, decorator: Scope | Class | str, through: tuple[Scope, ast.AST] | None
    ) -> Iterator[Run]:
        """Yield what starts a loop because a decorator made it do so."""
        for scope, node in self.decorated.get(decorator, ()):
            if scope.is_async:
                yield Run(scope, node, node, (), (scope,), through)
        for scope, call in self.sites.get(decorator, ()):
            above = scope.module.parents.get(call)
            if not call.args:
                continue
            if isinstance(above, ast.Call) and above.func is call:
                yield Run(scope, above, above, _written(scope, call.args[:1]), (), through)
            elif isinstance(above, ast.Assign) and scope.parent is None and isinstance(above.targets[0], ast.Name):
                for at, site in self.sites.get(Global(scope.module, above.targets[0].id), ()):
                    yield Run(at, site, site, _written(scope, call.args[:1]), (), through)

    def _of_task_class(self, run: Run) -> Iterator[Run]:
        """Yield the Celery tasks whose class starts a loop around each call of their function."""
        owner = run.scope.owner
        if owner is None or not run.scope.qualname.endswith(".__call__"):
            return
        calls = {
            node.attr for _, each in run.coroutines for node in ast.walk(each) if isinstance(node, ast.Attribute)
        }
        if calls.isdisjoint(("__call__", "run")):
            return
        for scope in self.scopes:
            if not scope.is_async:
                continue
            task = self.task_class(scope)
            if task is None and scope.owner is not None and scope.owner.methods.get("run") is scope:
                task = scope.owner
            if task is not None and owner in self.bases(task):
                yield Run(scope, scope.node, scope.node, (), (scope,), (run.scope, run.call))

    @cached_property
    def decorated(self) -> dict[Scope | Class | str, list[tuple[Scope, ast.expr]]]:
        """For each decorator, and each function that makes one, what it decorates."""
        found: dict[Scope | Class | str, list[tuple[Scope, ast.expr]]] = {}
        for scope in self.scopes:
            for node in scope.decorators:
                named = node.func if isinstance(node, ast.Call) else node
                target = self.resolve(named, scope.parent or scope)
                if isinstance(target, Scope | Class | str):
                    found.setdefault(target, []).append((scope, node))
        for target, uses in list(found.items()):
            if isinstance(target, Scope):
                for inner in target.functions.values():
                    if self._hands_out(target, inner):
                        found.setdefault(inner, []).extend(uses)
        return found

    def _forwarded(self, run: Run) -> dict[Scope, list[str]]:
        """Return the parameters that what a run executes consists of, by the functions whose they are."""
        found: dict[Scope, list[str]] = {}
        for scope, coroutine in run.coroutines:
            value = self.value_of(coroutine, scope)
            for part in (coroutine,) if value is None or value is coroutine else (coroutine, value):
                for node in ast.walk(part):
                    holder = self.holder_of(node.id, scope) if isinstance(node, ast.Name) else None
                    if isinstance(node, ast.Name) and holder is not None and node.id in holder.parameters:
                        found.setdefault(holder, []).append(node.id)
        return found

    def _kept_parameters(self, run: Run) -> list[str]:
        """Return the constructor's parameters that were kept in attributes which a method's run uses."""
        owner = run.scope.owner
        init = None if owner is None else owner.methods.get("__init__")
        if owner is None or init is None:
            return []
        nodes = [(scope, node) for scope, coroutine in run.coroutines for node in ast.walk(coroutine)]
        names: list[str] = []
        seen: set[Scope] = set()
        for scope, node in nodes:
            target = self.resolve(node, scope) if isinstance(node, ast.Attribute) else None
            if isinstance(target, Scope) and target.owner is owner and target not in seen:
                seen.add(target)
                nodes += [(target, each) for each in target.own]
            if isinstance(target, Global) and target.module is owner.scope.module:
                kept = owner.attributes.get(target.name.removeprefix(f"{owner.qualname}."), ())
                names += [
                    value.id
                    for at, value in kept
                    if at is init and isinstance(value, ast.Name) and value.id in init.parameters
                ]
        return names

    def _calls_inside(self, outer: Scope, inner: Scope) -> bool:
        """Say whether a function executes one that is defined in it, itself or on another thread."""
        if any(target is inner for target, _ in self.calls.get(outer, ())):
            return True
        return any(each.function is inner and each.by is outer for each in self.handed)

    def _hands_out(self, outer: Scope, inner: Scope) -> bool:
        """Say whether a function returns one that is defined in it."""
        for node in outer.own:
            if not isinstance(node, ast.Return) or node.value is None:
                continue
            for part in ast.walk(node.value):
                above = outer.module.parents.get(part)
                is_called = isinstance(above, ast.Call) and above.func is part
                if isinstance(part, ast.Name) and not is_called and self.resolve(part, outer) is inner:
                    return True
        return False


def _written(scope: Scope, expressions: "list[ast.expr] | tuple[ast.expr, ...]") -> tuple[Written, ...]:
    return tuple((scope, each) for each in expressions)
