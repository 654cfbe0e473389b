"""Which function calls which, and which ones are given to other threads."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from homeloop.cli._check._names import Names, Target
from homeloop.cli._check._source import Class, Scope


@dataclass(eq=False, frozen=True, slots=True)
class Handed:
    """
    A function that is given to another thread.

    Attributes:
        arguments: What it will be called with.
        attributes: What the object whose method it is has been given by its constructor.
    """

    function: Scope
    arguments: tuple[ast.expr, ...]
    by: Scope
    call: ast.Call
    attributes: dict[str, ast.expr] = field(default_factory=dict[str, ast.expr])


class Threads(Names):
    """Modules, with their calls on this thread and on others."""

    @cached_property
    def sites(self) -> dict[Target, list[tuple[Scope, ast.Call]]]:
        """For each name that is called, its calls, each with the function that it stands in."""
        found: dict[Target, list[tuple[Scope, ast.Call]]] = {}
        for scope in self.scopes:
            for node in scope.own:
                target = self.called(node, scope)
                if target is not None and isinstance(node, ast.Call):
                    found.setdefault(target, []).append((scope, node))
        return found

    @cached_property
    def calls(self) -> dict[Scope, list[tuple[Scope, ast.Call]]]:
        """For each function those of ours that it calls itself, here and now."""
        found: dict[Scope, list[tuple[Scope, ast.Call]]] = {}
        for target, sites in self.sites.items():
            if isinstance(target, Scope):
                for scope, node in sites:
                    found.setdefault(scope, []).append((target, node))
        return found

    @cached_property
    def callers(self) -> dict[Scope, list[tuple[Scope, ast.Call]]]:
        """For each function those that call it."""
        return {target: sites for target, sites in self.sites.items() if isinstance(target, Scope)}

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

    @cached_property
    def on_threads(self) -> set[Scope]:
        """All functions of ours that other threads are given."""
        return {each.function for each in self.handed}

    def _handed(self, node: ast.AST, scope: Scope) -> Iterator[Handed]:
        if not isinstance(node, ast.Call):
            return
        thread = self.called(node, scope)
        if isinstance(thread, Class):
            body = self._run_of(thread)
            if body is not None:
                yield Handed(body, (), scope, node, self._kept(thread, node))
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

    def _run_of(self, made: Class) -> Scope | None:
        """Return what a thread of this class executes; None if it is a class of something else."""
        if not self.derives(made, "threading.Thread", "threading.Timer"):
            return None
        found = self.member(made, "run")
        return found if isinstance(found, Scope) else None

    def _kept(self, made: Class, call: ast.Call) -> dict[str, ast.expr]:
        """Return the attributes of an object that keep what its constructor is given, with what that is."""
        init = self.member(made, "__init__")
        if not isinstance(init, Scope):
            return {}
        kept: dict[str, ast.expr] = {}
        for name, values in made.attributes.items():
            for scope, value in values:
                if scope is init and isinstance(value, ast.Name) and value.id in init.parameters:
                    given = argument(call, init, value.id)
                    if given is not None:
                        kept[name] = given
        return kept

    def _is_thread_pool(self, node: ast.expr, scope: Scope) -> bool:
        return self.origin(node, scope) in (
            "concurrent.futures.ThreadPoolExecutor",
            "concurrent.futures.thread.ThreadPoolExecutor",
        )


def argument(call: ast.Call, function: Scope, parameter: str) -> ast.expr | None:
    """Return what a call gives a function for one of its parameters."""
    for keyword in call.keywords:
        if keyword.arg == parameter:
            return keyword.value
    names = function.parameters
    if function.owner is not None and names[:1] in (["self"], ["cls"]):
        names = names[1:]
    for name, given in zip(names, call.args, strict=False):
        if isinstance(given, ast.Starred):
            return None
        if name == parameter:
            return given
    return None
