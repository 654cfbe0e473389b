"""Clients, pools and locks that several functions share: in a module, in a class, behind a cache."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from homeloop.cli._check._celery import Celery
from homeloop.cli._check._known import CACHED_PROPERTIES, CLIENTS, CLOSINGS, FIELDS, PRIMITIVES, RUNS
from homeloop.cli._check._names import STATE, Global, Target
from homeloop.cli._check._project import Project
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
        member: The attribute that keeps it, of an object for which the targets stand; None if they are it itself.
        makers: Functions that make it anew whenever they run.
    """

    code: str
    scope: Scope
    made: ast.AST
    what: str
    name: str
    targets: set[Target]
    member: Target | None = None
    makers: set[Scope] = field(default_factory=set[Scope])


_Attribute = tuple[str, Scope, ast.AST, str, str, Target, set[Scope]]
"""A rule's code, where and what is made, by whom, the attribute's name, what stands for it, who makes it anew."""


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
        for owner in self._single:
            for code, scope, node, what, name, target, makers in self._attributes(owner):
                every.append(Shared(code, scope, node, what, f"{owner.qualname}.{name}", {target}, None, makers))
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
            return None if self._project.is_cached(target) else self._returned(target)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "run_until_complete" and node.args:
            return self.made_by(node.args[0], scope)
        return None

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

    def _by_factory(self, node: ast.expr | None, scope: Scope) -> str | None:
        """Return what a dataclass's field makes anew for each object, if that lives on a loop."""
        wanted = FIELDS.get(str(self._project.called(node, scope)))
        given = node.keywords if wanted is not None and isinstance(node, ast.Call) else []
        for keyword in given:
            if keyword.arg == wanted:
                target = self._project.resolve(keyword.value, scope)
                if isinstance(target, Scope):
                    body = target.node.body
                    return self.made_by(body, target) if isinstance(body, ast.expr) else self._returned(target)
                return target if isinstance(target, str) and target in CLIENTS | PRIMITIVES else None
        return None

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
        owner = self._project.maker(value, top)
        if isinstance(owner, Class) and owner not in self._single:
            for code, scope, node, kept, attribute, member, makers in self._attributes(owner):
                yield Shared(code, scope, node, kept, f"{name}.{attribute}", {target}, member, makers)

    def _attributes(self, owner: Class) -> Iterator[_Attribute]:
        """What an object keeps: in an attribute that it is made with or a method fills, or a cached property."""
        module = owner.scope.module
        for name, declared in owner.names.items():
            for node in declared:
                what = self._by_factory(node, owner.scope)
                if what is not None and node is not None:
                    code = "HL109" if what in PRIMITIVES else "HL103"
                    target = Global(module, f"{owner.qualname}.{name}")
                    yield code, owner.scope, node, what, name, target, set[Scope]()
        for name, values in owner.attributes.items():
            for scope, value in values:
                what = self.made_by(value, scope)
                if what is not None:
                    code = "HL109" if what in PRIMITIVES else "HL103"
                    is_once = scope is owner.methods.get("__init__") or _is_once(value, scope)
                    makers = set[Scope]() if is_once else {scope}
                    yield code, scope, value, what, name, Global(module, f"{owner.qualname}.{name}"), makers
        for name, method in owner.methods.items():
            decorators = [self._project.resolve(each, method.parent or method) for each in method.decorators]
            what = self._returned(method) if any(each in CACHED_PROPERTIES for each in decorators) else None
            if what is not None:
                code = "HL109" if what in PRIMITIVES else "HL103"
                yield code, method, method.node, what, name, method, set[Scope]()

    @cached_property
    def _single(self) -> set[Class]:
        """Classes that have one object for all calls: those of Celery tasks, and those that only modules make."""
        kept, local = set[Class](), set[Class]()
        for target, sites in self._project.sites.items():
            if isinstance(target, Class):
                every = [each for each in self._project.bases(target) if isinstance(each, Class)]
                (kept if all(scope.parent is None for scope, _ in sites) else local).update(every)
        return Celery(self._project).classes | (kept - local)

    def _cached(self, scope: Scope) -> Iterator[Shared]:
        if self._project.is_cached(scope):
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
                    makers = set[Scope]() if _is_once(node, scope) else {scope}
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


def _is_once(node: ast.AST, scope: Scope) -> bool:
    """Say whether a function does something only if it has not been done yet, as far as its form tells."""
    if any(isinstance(each, ast.If | ast.Try) for each in scope.module.ancestors(node)):
        return True
    return _returns_early(scope)


def _returns_early(scope: Scope) -> bool:
    """Say whether a function begins with a test that may end it."""
    body = scope.node.body
    if not isinstance(body, list):
        return False
    return any(isinstance(each, ast.If) and each.body and isinstance(each.body[-1], ast.Return) for each in body)
