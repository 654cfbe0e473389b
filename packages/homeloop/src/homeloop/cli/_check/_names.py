"""What a name means, across all modules that are checked together."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from homeloop.cli._check._known import CACHES
from homeloop.cli._check._source import Class, Module, Scope

_MAX_HOPS = 6  # through re-exports
_MAX_BASES = 50
_MAX_CHAIN = 50  # dots and calls in a row; each takes three frames of the interpreter's recursion limit

STATE = "<state>."
"""Precedes the name of what an application keeps in its ``state``."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name of a module, or of a class (``Class.name``): what several functions may share."""

    module: Module
    name: str


Target = Scope | Class | Global | str
"""What a name stands for: ours, or the dotted name of somebody else's."""


class Names:
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

    def resolve(self, node: ast.AST, scope: Scope) -> Target | None:
        """Say what an expression of names and dots stands for; None if that is not known."""
        if not isinstance(node, ast.Name | ast.Attribute | ast.Lambda):
            return None
        key = (node, scope)
        if key not in self._resolved:
            self._resolved[key] = None  # of what is defined by itself, nothing is known
            if not _is_long(node):
                self._resolved[key] = self._resolve(node, scope)
        return self._resolved[key]

    def _resolve(self, node: ast.Name | ast.Attribute | ast.Lambda, scope: Scope) -> Target | None:
        if isinstance(node, ast.Name):
            return self._name(node.id, scope)
        if isinstance(node, ast.Lambda):
            return scope.lambdas.get(node)
        owner = self._class_of_self(node.value, scope)
        if owner is not None:
            return self.member(owner, node.attr)
        if isinstance(node.value, ast.Attribute) and node.value.attr == "state":
            return f"{STATE}{node.attr}"  # app.state.pool, request.app.state.pool: the same
        made = self.called(self.value_of(node.value, scope), scope)
        if isinstance(made, Class):
            return self.member(made, node.attr)
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

    def assigned(self, found: Global) -> list[tuple[ast.expr | None, Scope]]:
        """Return what a module's, a class's or an object's name is bound to, and where that is written."""
        top = found.module.top
        owner, _, name = found.name.rpartition(".")
        if not owner:
            return [(value, top) for value in top.names.get(name, [])]
        made = top.classes.get(owner)
        if made is None:
            return []
        values: list[tuple[ast.expr | None, Scope]] = [(value, top) for value in made.names.get(name, [])]
        return values + [(value, scope) for scope, value in made.attributes.get(name, [])]

    def origin(self, node: ast.expr, scope: Scope) -> str | None:
        """Return the dotted name of what made an object, or of the object if it is not among our modules."""
        target = self.resolve(node, scope)
        if isinstance(target, Global):
            made = (self.maker(value, at) for value, at in self.assigned(target))
            return next((each for each in made if isinstance(each, str)), None)
        if isinstance(node, ast.Name) and target is None:
            found = self.maker(self.value_of(node, scope), scope)
            return found if isinstance(found, str) else None
        return target if isinstance(target, str) else None

    def maker(self, node: ast.expr | None, scope: Scope) -> Target | None:
        """Say what makes an object: what is called, or what our function that is called returns anew."""
        made, hops = self.called(node, scope), 0
        while isinstance(made, Scope) and hops < _MAX_HOPS:
            made, hops = None if self.is_cached(made) else self._returned(made), hops + 1
        return made

    def _returned(self, scope: Scope) -> Target | None:
        for node in scope.own:
            if isinstance(node, ast.Return) and node.value is not None:
                made = self.called(self.value_of(node.value, scope), scope)
                if made is not None:
                    return made
        return None

    def is_cached(self, scope: Scope) -> bool:
        """Say whether a function is behind a cache."""
        for decorator in scope.decorators:
            named = decorator.func if isinstance(decorator, ast.Call) else decorator
            if self.resolve(named, scope.parent or scope) in CACHES:
                return True
        return False

    def task_class(self, scope: Scope) -> Class | None:
        """Return our class that a decorator makes a Celery task of, with ``base=``."""
        for decorator in scope.decorators:
            given = decorator.keywords if isinstance(decorator, ast.Call) else []
            for keyword in given:
                if keyword.arg == "base":
                    found = self.resolve(keyword.value, scope.parent or scope)
                    return found if isinstance(found, Class) else None
        return None

    def _class_of_self(self, node: ast.expr, scope: Scope) -> Class | None:
        """Return the class of which a name is an object: a method's ``self``, or that of a bound Celery task."""
        if not isinstance(node, ast.Name):
            return None
        if node.id in ("self", "cls") and scope.owner is not None:
            return scope.owner
        at = self.holder_of(node.id, scope)
        if at is None or at.parameters[:1] != [node.id] or not _is_bound(at):
            return None
        return self.task_class(at)

    def derives(self, made: Class, *bases: str) -> bool:
        """Say whether a class derives from one of somebody else's, through ours."""
        return any(isinstance(each, str) and each in bases for each in self.bases(made))

    def bases(self, made: Class) -> list[Target]:
        """Return a class and all that it derives from, as far as that is known."""
        found: list[Target] = [made]
        for each in found:
            if isinstance(each, Class) and len(found) < _MAX_BASES:
                resolved = (self.resolve(base, each.scope) for base in each.node.bases)
                found += [base for base in resolved if base is not None and base not in found]
        return found

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

    def member(self, owner: Class, name: str, hops: int = 0) -> Target | None:
        """Return what an object's or a class's attribute is."""
        if name in owner.methods:
            return owner.methods[name]
        if name in owner.names or name in owner.attributes:
            return Global(owner.scope.module, f"{owner.qualname}.{name}")
        if hops < _MAX_HOPS:
            for base in owner.node.bases:
                above = self.resolve(base, owner.scope)
                if isinstance(above, Class) and above is not owner:
                    found = self.member(above, name, hops + 1)
                    if found is not None:
                        return found
        return None

    def _attribute(self, target: Target | None, name: str, hops: int = 0) -> Target | None:
        if isinstance(target, str):
            return self._import(f"{target}.{name}", hops + 1)
        if isinstance(target, Scope):  # of a Celery task: its object's
            target = self.task_class(target)
        if isinstance(target, Class):
            return self.member(target, name)
        if isinstance(target, Global):
            made = self.class_of(target)
            return self.member(made, name) if made is not None else None
        return None

    def class_of(self, found: Global) -> Class | None:
        """Return our class, if a global is bound once, to an instance of it."""
        values = [(value, at) for value, at in self.assigned(found) if not _is_none(value)]
        if len(values) != 1:
            return None
        made = self.maker(*values[0])
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


def _is_bound(scope: Scope) -> bool:
    """Say whether a decorator has a function called with the object that it makes: ``bind=True``."""
    given = [
        each for decorator in scope.decorators if isinstance(decorator, ast.Call) for each in decorator.keywords
    ]
    return any(
        each.arg == "bind" and isinstance(each.value, ast.Constant) and each.value.value is True for each in given
    )


def _is_long(node: ast.AST) -> bool:
    """Say whether an expression is a chain of so many calls that nobody can tell what it stands for."""
    for _ in range(_MAX_CHAIN):
        if isinstance(node, ast.Attribute):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return False
    return True


def _is_none(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is None
