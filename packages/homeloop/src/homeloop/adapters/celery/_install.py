"""How an app comes to have async tasks."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import inspect
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from celery import Celery, Task
from celery.utils.imports import symbol_by_name

from homeloop import LoopRuntime
from homeloop.adapters.celery._arguments import check_app, check_functions, check_number, check_task_function
from homeloop.adapters.celery._children import TellOfChildren
from homeloop.adapters.celery._give_back import GiveBack, LookForLost
from homeloop.adapters.celery._hub import CancelWithoutAnswer
from homeloop.adapters.celery._lifecycle import WARM_UP_TIMEOUT, WarmUp, warm_up_with_worker
from homeloop.adapters.celery._prefetch import RestorePrefetchInTurn
from homeloop.adapters.celery._pydantic import with_models
from homeloop.adapters.celery._stacks import follow_context
from homeloop.adapters.celery._task import AsyncTask, coroutine_behind
from homeloop.errors import AdapterError, ConfigurationError

_installed: "WeakKeyDictionary[Celery, LoopRuntime | None]" = WeakKeyDictionary()


def install(
    app: Celery,
    *,
    runtime: LoopRuntime | None = None,
    warm_up: Sequence[WarmUp] = (),
    warm_up_timeout: float = WARM_UP_TIMEOUT,
) -> None:
    """
    Let every task of an app be ``async def``, also those with a ``base`` class of their own.

    Call it right after ``app = Celery(...)``. Sync tasks stay as they are. The runtime starts with
    each process of a worker that runs tasks, never in the parent of a prefork pool, or else with
    the first async task. It is closed when that process stops: coroutines are cancelled and cleaned
    up, loop-bound resources closed.

    Args:
        app: The application.
        runtime: Where tasks run whose class names no ``runtime``; the default runtime if None.
        warm_up: Async functions without arguments that the runtime runs when it starts with a
            worker, one after the other: ``pools.get`` of a `LoopLocal` opens the pool before the
            first task. One that fails is logged, and the worker goes on.
        warm_up_timeout: Seconds that all of ``warm_up`` may take together, 30 by default; what is not
            done then is cancelled and has failed. In a prefork pool's child it is at most the setting
            ``worker_proc_alive_timeout`` (4 s by default) less 1.5 s: Celery kills a child not up by then.

    Raises:
        AdapterError: The app has made tasks already or has another runtime, or Celery's task stacks
            cannot follow a coroutine (``USE_FAST_LOCALS``). Nothing was changed.
        ConfigurationError: An argument is no app, no runtime, no sequence of functions or no number above 0.
            Nothing was changed.

    Thread: the one that sets up the app.
    """
    check_app("install", app)
    if runtime is not None and not isinstance(runtime, LoopRuntime):
        raise ConfigurationError(
            f"install: runtime is {runtime!r}", "pass a LoopRuntime, or None for the default one"
        )
    check_functions("install", "warm_up", warm_up)
    check_number("install", "warm_up_timeout", warm_up_timeout, above_least=True)
    name = repr(app.main or "app")
    if app.finalized or "Task" in vars(app):
        raise AdapterError(f"install({name}) comes too late, tasks exist; call it right after Celery()")
    follow_context()
    if _installed.setdefault(app, runtime) is not runtime:
        raise AdapterError(f"install({name}) was called with another runtime before; call it once")
    if warm_up:
        warm_up_with_worker(app, runtime, warm_up, warm_up_timeout)
    if "register_task" in vars(app):
        return
    untyped: Any = app
    untyped.steps["consumer"].update(
        (CancelWithoutAnswer, GiveBack, LookForLost, RestorePrefetchInTurn, TellOfChildren)
    )
    from_function, register, decorator = app._task_from_fun, app.register_task, app.task

    def task(*args: Any, **options: Any) -> Any:
        for fun in args:  # at once: Celery makes the task when somebody wants it
            check_task_function(fun)
        made = decorator(*args, **options)
        if args:
            return made

        def decorate(fun: Any) -> Any:
            check_task_function(fun)
            return made(fun)

        return decorate

    def task_from_function(fun: Any, *args: Any, base: Any = None, **options: Any) -> Any:
        check_task_function(fun)
        if options.get("pydantic") is True and inspect.iscoroutinefunction(fun):
            fun, options = with_models(app, fun, options)
        mixed = base and (inspect.iscoroutinefunction(fun) or coroutine_behind(fun) is not None)
        if "dont_autoretry_for" in options:  # it would take the place of the class's
            options["dont_autoretry_for"] = (*options["dont_autoretry_for"], *AsyncTask.dont_autoretry_for)
        return from_function(fun, *args, base=_async_class(base, runtime) if mixed else base, **options)

    def register_task(task: Any, **options: Any) -> Any:
        kind: Any = task if inspect.isclass(task) else type(task)
        if inspect.iscoroutinefunction(kind.run) and not issubclass(kind, AsyncTask):
            raise AdapterError(f"{kind.__qualname__}.run is async def; derive {kind.__qualname__} from AsyncTask")
        return register(task, **options)

    # `base` and class-based tasks pass the app's task_cls by, and Celery has no public hook for them.
    untyped._task_from_fun, untyped.register_task, untyped.task = task_from_function, register_task, task
    untyped.task_cls = _async_class(symbol_by_name(untyped.task_cls), runtime)


def runtime_of(app: Celery) -> LoopRuntime | None:
    """
    Return the runtime that `install` was told of; None for the default one.

    Raises:
        AdapterError: It was not called for the app.
    """
    if app not in _installed:
        raise AdapterError(f"call install({app.main or 'app'!r}) first, right after Celery()")
    return _installed[app]


def _async_class(base: Any, runtime: LoopRuntime | None) -> Any:
    """Make a task class an `AsyncTask` too; what it says of its runtime goes before what the app says."""
    own = getattr(base, "runtime", None) or runtime
    name, attributes = base.__name__, {"abstract": True, "runtime": own, "__module__": base.__module__}
    if not issubclass(base, AsyncTask):
        if base.Request != Task.Request:
            attributes["Request"] = base.Request  # somebody's own goes before ours
        return type(name, (AsyncTask, base), attributes)
    return base if base.runtime is own else type(name, (base,), attributes)
