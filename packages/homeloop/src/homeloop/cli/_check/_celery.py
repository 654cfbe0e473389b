"""What is a Celery task: by decorator and by class."""

import ast
from functools import cached_property

from homeloop.cli._check._project import Project
from homeloop.cli._check._source import Class, Scope

_DECORATORS = ("celery.decorators.task", "celery.shared_task", "celery.task")
_APPLICATIONS = ("celery.Celery", "celery.app.base.Celery")
_TASKS = ("celery.Task", "celery.app.task.Task")


class Celery:
    """Finds tasks."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def is_decorator(self, named: ast.expr, scope: Scope) -> bool:
        """Say whether a decorator makes a task."""
        if self._project.resolve(named, scope) in _DECORATORS:
            return True
        return self._is_applications(named, "task", scope)

    def is_task(self, scope: Scope) -> bool:
        """Say whether a function is a task, or what a class of tasks executes."""
        for decorator in scope.decorators:
            named = decorator.func if isinstance(decorator, ast.Call) else decorator
            if self.is_decorator(named, scope.parent or scope):
                return True
        owner = scope.owner
        return owner is not None and owner.methods.get("run") is scope and owner in self.classes

    @cached_property
    def classes(self) -> set[Class]:
        """Our classes of tasks, and what those derive from: one object of each task serves all its calls."""
        found: set[Class] = set()
        every = [made for module in self._project.modules for made in module.top.classes.values()]
        used = [self._project.task_class(scope) for scope in self._project.scopes]
        for made in every:
            if made in used or self._is_class(made):
                found.update(each for each in self._project.bases(made) if isinstance(each, Class))
        return found

    def _is_class(self, made: Class) -> bool:
        if self._project.derives(made, *_TASKS):
            return True
        ours = [each for each in self._project.bases(made) if isinstance(each, Class)]
        return any(self._is_applications(base, "Task", each.scope) for each in ours for base in each.node.bases)

    def _is_applications(self, node: ast.expr, name: str, scope: Scope) -> bool:
        """Say whether a node is this attribute of a Celery application."""
        if not isinstance(node, ast.Attribute) or node.attr != name:
            return False
        made = self._project.origin(node.value, scope)
        # An application that is not among the files is known by what it is imported as.
        return made is not None and (
            made in _APPLICATIONS or made.rpartition(".")[2] in ("celery", "celery_app", "celeryapp")
        )
