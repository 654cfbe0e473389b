"""Clients, pools and locks that several functions share: in a module, in a class, behind a cache."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from homeloop.cli._check._known import CACHES, CLIENTS, CLOSINGS, PRIMITIVES, RUNS
from homeloop.cli._check._project import STATE, Global, Project, Target
from homeloop.cli._check._source import Class, Module, Scope


@dataclass(eq=False, slots=True)
class Shared:
    """
    An object that outlives a loop, as far as its name goes.

    Attributes:
        code: The rule that it breaks, once several loops use it.
        made: Where it is made.
        what: Dotted name of what makes it.
        name: What people call it.
        targets: The names that stand for it.
        member: It is kept in this attribute of the class's instances, one of which the targets stand for.
        makers: Functions that make it anew whenever they run.
    """

    code: str
    scope: Scope
    made: ast.AST
    what: str
    name: str
    targets: set[Target]
    member: tuple[Class, str] | None = None
    makers: set[Scope] = field(default_factory=set[Scope])


class SharedObjects:
    """Finds what is shared, and who uses it."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._returns: dict[Scope, str | None] = {}

    def all(self) -> list[Shared]:
        """Return everything that is shared."""
        every: list[Shared] = []
        for module in self._project.modules:
            every += self._in_module(module)
            for scope in module.scopes:
                every += self._cached(scope)
                every += self._kept(scope)
        derived = self._derived()
        for shared in every:
            waiting = list(shared.targets)
            while waiting:
                more = [each for each in derived.get(waiting.pop(), ()) if each not in shared.targets]
                shared.targets.update(more)
                waiting += more
        return every

    def made_by(self, node: ast.expr | None, scope: Scope) -> str | None:
        """Return the dotted name of what an expression makes, if that lives on a loop."""
        if isinstance(node, ast.Await):
            return self.made_by(node.value, scope)
        if not isinstance(node, ast.Call):
            return None
        target = self._project.called(node, scope)
        if isinstance(target, str):
            if target in RUNS and node.args:
                return self.made_by(node.args[0], scope)
            return target if target in CLIENTS | PRIMITIVES and not self._keeps_nothing(node, scope) else None
        if isinstance(target, Scope):
            return None if self.is_cached(target) else self._returned(target)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "run_until_complete" and node.args:
            return self.made_by(node.args[0], scope)
        return None

    def is_cached(self, scope: Scope) -> bool:
        """Say whether a function is behind a cache."""
        for decorator in scope.decorators:
            named = decorator.func if isinstance(decorator, ast.Call) else decorator
            if self._project.resolve(named, scope.parent or scope) in CACHES:
                return True
        return False

    def named(self, nodes: Iterable[ast.AST], scope: Scope) -> set[Target]:
        """Return all that the nodes stand for."""
        found = (
            self._project.resolve(node, scope)
            for node in nodes
            if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load)
        )
        return {target for target in found if target is not None}

    def closes(self, shared: Shared, scope: Scope) -> bool:
        """Say whether a function closes the object."""
        return any(
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in CLOSINGS
            and self._project.resolve(node.func.value, scope) in shared.targets
            for node in scope.own
        )

    def uses_member(self, shared: Shared, scope: Scope) -> bool:
        """Say whether a function is a method that uses the attribute which keeps the object."""
        if shared.member is None or scope.owner is not shared.member[0]:
            return False
        return any(
            isinstance(node, ast.Attribute)
            and node.attr == shared.member[1]
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
            for node in scope.own
        )

    def _keeps_nothing(self, call: ast.Call, scope: Scope) -> bool:
        """Say whether an engine keeps no connections."""
        for keyword in call.keywords:
            if keyword.arg == "poolclass":
                target = self._project.resolve(keyword.value, scope)
                return isinstance(target, str) and target.endswith("NullPool")
        return False

    def _returned(self, scope: Scope) -> str | None:
        """Return what a function makes and returns."""
        if scope not in self._returns:
            self._returns[scope] = None  # a recursion adds nothing
            values = [node.value for node in scope.own if isinstance(node, ast.Return) and node.value is not None]
            made = (self.made_by(self._project.value_of(value, scope), scope) for value in values)
            self._returns[scope] = next(filter(None, made), None)
        return self._returns[scope]

    def _in_module(self, module: Module) -> Iterator[Shared]:
        top = module.top
        for name, values in top.names.items():
            for value in values:
                yield from self._named(name, value, top, Global(module, name))
        for made in top.classes.values():
            for name, values in made.names.items():
                for value in values:
                    yield from self._named(
                        f"{made.qualname}.{name}", value, top, Global(module, f"{made.qualname}.{name}")
                    )

    def _named(self, name: str, value: ast.expr | None, top: Scope, target: Global) -> Iterator[Shared]:
        what = self.made_by(value, top)
        if what is not None and value is not None:
            code = "HL109" if what in PRIMITIVES else "HL101"
            yield Shared(code, top, value, what, name, {target})
            return
        owner = self._project.called(value, top) if value is not None else None
        if isinstance(owner, Class) and "__init__" in owner.methods:
            yield from self._held(owner, owner.methods["__init__"], name, target)

    def _held(self, owner: Class, init: Scope, name: str, target: Global) -> Iterator[Shared]:
        """What an instance that a module keeps, keeps itself."""
        for node in init.own:
            if not isinstance(node, ast.Assign | ast.AnnAssign):
                continue
            (attribute,) = node.targets[:1] if isinstance(node, ast.Assign) else [node.target]
            what = self.made_by(node.value, init)
            if what is None or not isinstance(attribute, ast.Attribute) or node.value is None:
                continue
            if isinstance(attribute.value, ast.Name) and attribute.value.id == "self":
                code = "HL109" if what in PRIMITIVES else "HL103"
                yield Shared(
                    code, init, node.value, what, f"{name}.{attribute.attr}", {target}, (owner, attribute.attr)
                )

    def _cached(self, scope: Scope) -> Iterator[Shared]:
        if self.is_cached(scope):
            what = self._returned(scope)
            if what is not None:
                yield Shared("HL102", scope, scope.decorators[0], what, f"{scope.label}()", {scope})

    def _kept(self, scope: Scope) -> Iterator[Shared]:
        """Objects that a function makes once, and keeps in a module's or a class's name."""
        for node in scope.own:
            if scope.parent is None or not isinstance(node, ast.Assign):
                continue
            what = self.made_by(node.value, scope)
            if what is None:
                continue
            code = "HL109" if what in PRIMITIVES else "HL103"
            for goal in node.targets:
                target = self._place(goal, scope)
                if target is not None:
                    is_once = any(isinstance(each, ast.If | ast.Try) for each in scope.module.ancestors(node))
                    is_once = is_once or _returns_early(scope)
                    makers = set[Scope]() if is_once else {scope}
                    name = target.name if isinstance(target, Global) else f"app.state.{target.removeprefix(STATE)}"
                    yield Shared(code, scope, node.value, what, name, {target}, None, makers)

    def _place(self, goal: ast.expr, scope: Scope) -> Global | str | None:
        if isinstance(goal, ast.Subscript):  # a dictionary of clients
            if self._is_loop(goal.slice, scope):
                return None  # one for each loop
            goal = goal.value
        elif isinstance(goal, ast.Name) and goal.id not in scope.global_names:
            return None
        is_self = isinstance(goal, ast.Attribute) and isinstance(goal.value, ast.Name) and goal.value.id == "self"
        target = None if is_self else self._project.resolve(goal, scope)
        if isinstance(target, str) and not target.startswith(STATE):
            return None
        return target if isinstance(target, Global | str) else None

    def _is_loop(self, key: ast.expr, scope: Scope) -> bool:
        """Say whether a dictionary's key is the running loop, its number, or a tuple with it."""
        if isinstance(key, ast.Tuple):
            return any(self._is_loop(each, scope) for each in key.elts)
        value = self._project.value_of(key, scope)
        if not isinstance(value, ast.Call):
            return False
        if isinstance(value.func, ast.Name) and value.func.id == "id" and value.args:
            return self._is_loop(value.args[0], scope)
        return self._project.called(value, scope) in ("asyncio.get_event_loop", "asyncio.get_running_loop")

    def _derived(self) -> dict[Target, list[Global]]:
        """For what a call at a module's top is given the names of what it makes: sessions of an engine."""
        found: dict[Target, list[Global]] = {}
        for module in self._project.modules:
            for name, values in module.top.names.items():
                for value in values:
                    if isinstance(value, ast.Call):
                        given = [value.func, *value.args, *(each.value for each in value.keywords)]
                        for target in self.named((node for part in given for node in _names(part)), module.top):
                            found.setdefault(target, []).append(Global(module, name))
        return found


def _names(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a chain of dots and names, no further."""
    while isinstance(node, ast.Attribute):
        yield node
        node = node.value
    if isinstance(node, ast.Name):
        yield node


def _returns_early(scope: Scope) -> bool:
    """Say whether a function begins with a test that may end it."""
    body = scope.node.body
    if not isinstance(body, list):
        return False
    return any(isinstance(each, ast.If) and each.body and isinstance(each.body[-1], ast.Return) for each in body)
