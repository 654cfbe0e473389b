"""One module as the rules see it: its functions, what its names stand for, what each function does itself."""

import ast
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_IGNORED = re.compile(r"#\s*homeloop:\s*ignore(?:\[([^\]]*)\])?\s*(?:#.*)?$")


@dataclass(eq=False, slots=True)
class Scope:
    """
    A function, or a module's own code (``node`` is the module then), without what is defined inside.

    Attributes:
        qualname: As Python has it, without ``<locals>``.
        owner: The class that it is a method of.
        names: What each local name is bound to: the expressions assigned to it, None for all that is not an
            assignment of one expression (parameters, loop variables).
    """

    module: "Module"
    node: FunctionNode | ast.Module
    qualname: str
    parent: "Scope | None" = None
    owner: "Class | None" = None
    names: dict[str, list[ast.expr | None]] = field(default_factory=dict[str, list[ast.expr | None]])
    imports: dict[str, str] = field(default_factory=dict[str, str])
    functions: dict[str, "Scope"] = field(default_factory=dict[str, "Scope"])
    classes: dict[str, "Class"] = field(default_factory=dict[str, "Class"])
    global_names: set[str] = field(default_factory=set[str])
    own: list[ast.AST] = field(default_factory=list[ast.AST])
    lambdas: dict[ast.Lambda, "Scope"] = field(default_factory=dict[ast.Lambda, "Scope"])

    @property
    def is_async(self) -> bool:
        return isinstance(self.node, ast.AsyncFunctionDef)

    @property
    def decorators(self) -> list[ast.expr]:
        return [] if isinstance(self.node, ast.Module | ast.Lambda) else self.node.decorator_list

    @property
    def parameters(self) -> list[str]:
        if isinstance(self.node, ast.Module):
            return []
        arguments = self.node.args
        return [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]

    @property
    def label(self) -> str:
        return self.qualname or "the module"


@dataclass(eq=False, slots=True)
class Class:
    """
    A class and its methods.

    Attributes:
        names: Those bound in its body.
        attributes: Those of ``self``, with what methods assign to them.
    """

    node: ast.ClassDef
    qualname: str
    scope: Scope
    methods: dict[str, Scope] = field(default_factory=dict[str, Scope])
    names: dict[str, list[ast.expr | None]] = field(default_factory=dict[str, list[ast.expr | None]])
    attributes: dict[str, list[tuple[Scope, ast.expr]]] = field(
        default_factory=dict[str, list[tuple[Scope, ast.expr]]]
    )


@dataclass(eq=False, slots=True)
class Module:
    """
    A parsed file.

    Attributes:
        names: Those by which others may import it.
        declared: What its functions declare to be global.
    """

    path: Path
    lines: list[str]  # as the parser counts them
    names: tuple[str, ...]
    is_package: bool
    top: Scope = field(init=False)
    scopes: list[Scope] = field(default_factory=list[Scope])
    parents: dict[ast.AST, ast.AST] = field(default_factory=dict[ast.AST, ast.AST])
    declared: set[str] = field(default_factory=set[str])

    def is_ignored(self, line: int, code: str, name: str) -> bool:
        """Say whether the line has a comment that suppresses a rule, or all of them."""
        found = _IGNORED.search(self.lines[line - 1]) if 0 < line <= len(self.lines) else None
        if found is None:
            return False
        if found[1] is None:
            return True
        named = [each.strip().lower() for each in found[1].split(",")]
        return any(each and (code.lower().startswith(each) or each == name) for each in named)

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        """Yield what encloses a node, from the inside out, up to its function."""
        above = self.parents.get(node)
        while above is not None and not isinstance(above, (*_SCOPES, ast.Module)):
            yield above
            above = self.parents.get(above)


def read_module(path: Path, root: Path) -> Module:
    """
    Parse a file.

    Args:
        path: The file.
        root: What was asked to be checked; the module can be imported by its path below it.

    Raises:
        SyntaxError: It is not Python of this version.
        UnicodeDecodeError, OSError: It cannot be read.
    """
    if not path.is_file():  # a pipe would keep us waiting for ever
        raise OSError("no regular file, or a link to nowhere")
    with tokenize.open(path) as file:  # in the encoding that it declares
        text = file.read()
    try:
        tree = ast.parse(text, str(path))
    except (ValueError, RecursionError) as error:  # null bytes; an expression too deep for the parser
        raise SyntaxError(str(error)) from error
    module = Module(path, text.split("\n"), _names(path, root), path.name == "__init__.py")
    module.top = Scope(module, tree, "")
    module.scopes.append(module.top)
    try:
        _Reader(module).read_body(tree.body, module.top, None)
    except RecursionError as error:
        raise SyntaxError("an expression is nested too deeply") from error
    return module


def _names(path: Path, root: Path) -> tuple[str, ...]:
    """Return the names of a module: as its packages say, and by its path below what is checked."""
    parts = [] if path.name == "__init__.py" else [path.stem]
    folder = path.parent
    package = list(parts)
    while (folder / "__init__.py").exists() and folder.name:
        package.insert(0, folder.name)
        folder = folder.parent
    base = root if root.is_dir() else root.parent
    below = [*path.parent.relative_to(base).parts, *parts]
    without_src = below[1:] if below[:1] == ["src"] else below
    return tuple(dict.fromkeys(".".join(each) for each in (package, below, without_src) if each))


class _Reader:
    def __init__(self, module: Module) -> None:
        self.module = module

    def read_body(self, body: list[ast.stmt], scope: Scope, owner: Class | None) -> None:
        for statement in body:
            self.read(statement, scope, owner)

    def read(self, node: ast.AST, scope: Scope, owner: Class | None) -> None:
        """Enter a node into its scope; go into what it contains, a function's body into a scope of its own."""
        scope.own.append(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self._function(node, scope, owner)
            return
        if isinstance(node, ast.Lambda):
            inner = Scope(self.module, node, f"{scope.qualname}.<lambda>".lstrip("."), scope, scope.owner)
            scope.lambdas[node] = inner
            self.module.scopes.append(inner)
            self._parameters(node, inner)
            self.module.parents[node.body] = node
            self.read(node.body, inner, None)
            return
        if isinstance(node, ast.ClassDef):
            self._class(node, scope)
            return
        self._bindings(node, scope, owner)
        for child in ast.iter_child_nodes(node):
            self.module.parents[child] = node
            self.read(child, scope, owner)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope, owner: Class | None) -> None:
        prefix = owner.qualname if owner is not None else scope.qualname
        inner = Scope(self.module, node, f"{prefix}.{node.name}".lstrip("."), scope, owner or scope.owner)
        self.module.scopes.append(inner)
        (scope.functions if owner is None else owner.methods)[node.name] = inner
        for part in (*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.module.parents[part] = node
            self.read(part, scope, None)
        self._parameters(node, inner)
        for statement in node.body:
            self.module.parents[statement] = node
        self.read_body(node.body, inner, None)

    def _class(self, node: ast.ClassDef, scope: Scope) -> None:
        made = Class(node, f"{scope.qualname}.{node.name}".lstrip("."), scope)
        scope.classes[node.name] = made
        for statement in node.body:
            self.module.parents[statement] = node
        for part in (*node.decorator_list, *node.bases):
            self.module.parents[part] = node
            self.read(part, scope, None)
        self.read_body(node.body, scope, made)

    def _parameters(self, node: FunctionNode, scope: Scope) -> None:
        arguments = node.args
        every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg)
        for argument in every:
            if argument is not None:
                scope.names.setdefault(argument.arg, []).append(None)

    def _bindings(self, node: ast.AST, scope: Scope, owner: Class | None) -> None:
        names = scope.names if owner is None else owner.names
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                scope.imports[name] = alias.name if alias.asname else name
        elif isinstance(node, ast.ImportFrom):
            base = self._absolute(node)
            for alias in node.names:
                scope.imports[alias.asname or alias.name] = f"{base}.{alias.name}".lstrip(".")
        elif isinstance(node, ast.Global):
            scope.global_names.update(node.names)
            self.module.declared.update(node.names)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    names.setdefault(target.id, []).append(node.value)
                self._attribute(target, node.value, scope)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Attribute):
            self._attribute(node.target, node.value, scope)
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and isinstance(node.target, ast.Name):
            if node.value is not None:
                names.setdefault(node.target.id, []).append(node.value)
        elif isinstance(node, ast.withitem) and isinstance(node.optional_vars, ast.Name):
            names.setdefault(node.optional_vars.id, []).append(node.context_expr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            above = self.module.parents.get(node)
            if not isinstance(above, ast.Assign | ast.AnnAssign | ast.NamedExpr | ast.withitem):
                names.setdefault(node.id, []).append(None)

    def _attribute(self, target: ast.expr, value: ast.expr | None, scope: Scope) -> None:
        """Note what a method assigns to an attribute of its object."""
        if value is None or scope.owner is None or not isinstance(target, ast.Attribute):
            return
        if isinstance(target.value, ast.Name) and target.value.id == "self":
            scope.owner.attributes.setdefault(target.attr, []).append((scope, value))

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.module.names[0].split(".") if self.module.names else []
        up = node.level - (1 if self.module.is_package else 0)
        kept = parts[: len(parts) - up] if up else parts
        return ".".join([*kept, *filter(None, [node.module])])
