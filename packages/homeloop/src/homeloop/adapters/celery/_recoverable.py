"""What is around the function of a task that survives its worker."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from celery import Celery, current_task
from celery.exceptions import Ignore

from homeloop.adapters.celery._checkpoints import RecoveryContext
from homeloop.errors import AdapterError, ConfigurationError, LeaseLostError

ARGUMENT = "recovery_ctx"
MARK = "homeloop_recovered"
"""The attribute of a function by which its task is known to be recovered."""

RUN = "homeloop_run"
"""The attribute of a request that holds its run: a second delivery of the task has a request of its own."""

Body = Callable[[RecoveryContext], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Options:
    """What `user_aware_task` was told of a task's recovery."""

    checkpoint_frequency: float
    recovery_priority: int


class Runs(Protocol):
    """Runs a task's body while holding the task; see `Recovery.run`."""

    async def run(self, task: Any, request: Any, options: Options, body: Body) -> Any: ...


class Run(Protocol):
    """What a request knows of its run."""

    context: RecoveryContext


recoveries: "WeakKeyDictionary[Celery, Runs]" = WeakKeyDictionary()
"""By app: what `recover_tasks` has set up in this process."""


def ensure_held(request: Any, postponed: list[Callable[[], object]] | None) -> None:
    """
    Refuse what a run has come to if its task is not its own any more.

    ``postponed``, what it wanted to be sent, is dropped. A task without recovery passes.

    Raises:
        Ignore: Another worker has the task, or may have it.

    Thread: any.
    """
    run: Run | None = vars(request).get(RUN)
    if run is not None and not run.context.is_held():
        if postponed is not None:
            postponed.clear()
        raise Ignore(str(LeaseLostError(run.context.task_id, run.context.fence)))


def recovered(fn: Callable[..., Awaitable[Any]], options: Options) -> Callable[..., Awaitable[Any]]:
    """
    Let a task survive its worker. ``fn`` gets the argument ``recovery_ctx`` if it has a parameter of that name.

    Raises:
        AdapterError: It is not ``async def``.
    """
    if not inspect.iscoroutinefunction(fn):
        raise AdapterError(f"{fn.__qualname__} is to be recovered, and must be async def for that")
    signature = inspect.signature(fn)
    takes_context = ARGUMENT in signature.parameters

    @wraps(fn)
    async def run(*args: Any, **kwargs: Any) -> Any:
        async def body(context: RecoveryContext) -> Any:
            return await fn(*args, **kwargs, **({ARGUMENT: context} if takes_context else {}))

        request: Any = current_task.request if current_task else None
        if request is None or request.called_directly or request.is_eager:
            task_id = (request and request.id) or ""
            return await body(RecoveryContext(task_id, frequency=options.checkpoint_frequency))
        task: Any = current_task._get_current_object()
        recovery = recoveries.get(task.app)
        if recovery is None:
            raise ConfigurationError(f"{task.name} is to be recovered, and nobody said where from",
                                     "call recover_tasks(app, store) where the app is made")  # fmt: skip
        return await recovery.run(task, request, options, body)

    shown = [each for name, each in signature.parameters.items() if name != ARGUMENT]
    run.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]  # for callers
    setattr(run, MARK, True)
    return run
