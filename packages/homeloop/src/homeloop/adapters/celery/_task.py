"""The task class whose function may be a coroutine function, and the bridge it is called through."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import inspect
import time
from asyncio import CancelledError
from collections.abc import Callable, Coroutine, Sequence
from contextvars import copy_context
from functools import partial, wraps
from types import MethodType
from typing import Any

from celery import Celery, Task
from celery.app.task import Context
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded, TimeLimitExceeded

from homeloop import LoopRuntime, default_runtime
from homeloop.adapters.celery import _hub as hub
from homeloop.adapters.celery._arguments import check_task_function
from homeloop.adapters.celery._body import Body, SoftLimitReached, current_body
from homeloop.adapters.celery._handles import handles
from homeloop.adapters.celery._lifecycle import close_with_worker, start_with_worker
from homeloop.adapters.celery._recoverable import MARK, ensure_held
from homeloop.adapters.celery._replay import replayed
from homeloop.adapters.celery._stacks import app_of, awaited, follow_context
from homeloop.adapters.celery._worker import KILL_MARGIN, is_pool_child, own_limits
from homeloop.errors import AdapterError, CallTimeoutError, SelfCancelledError


class AsyncTask(Task):  # type: ignore[misc]  # Celery ships no types
    """
    A task whose function may be ``async def``.

    Celery calls a task's function on a thread of the worker and takes what it returns for the
    result. The function of an async task is replaced by a sync one that runs it on the runtime and
    waits, before Celery wraps it for autoretry. So retry, autoretry, events, callbacks, eager mode
    and direct calls keep their meaning. On the runtime's own thread a direct call returns the
    coroutine: ``await other(1)``. Use it through `install`, or as ``base=AsyncTask``.
    """

    abstract = True
    Request = "homeloop.adapters.celery._request:Request"  # by name: only workers import it
    run: Callable[..., Any]  # the task's function, or the bridge to it
    dont_autoretry_for = (
        TimeLimitExceeded,
    )  # a hard limit is the end, though we raise it where autoretry sees it
    runtime: LoopRuntime | None = None  # where the function runs; the default runtime if None
    is_async = False
    coroutine_function: Callable[..., Coroutine[Any, Any, Any]]  # what the bridge runs on the loop, if it is
    bridge: Callable[..., Any]

    def __init__(self) -> None:
        super().__init__()
        if getattr(self.run, MARK, False):
            # Acknowledged before it runs, it could be lost between that and its claim.
            kind: Any = type(self)
            kind.acks_late = True if kind.acks_late is None else kind.acks_late
            kind.reject_on_worker_lost = True if kind.reject_on_worker_lost is None else kind.reject_on_worker_lost
        behind = coroutine_behind(self.run)
        if behind is not None:
            self.run = MethodType(behind, self) if inspect.ismethod(self.run) else behind
        check_task_function(self.run)
        if inspect.iscoroutinefunction(self.run):
            self.is_async = True
            self.coroutine_function = self.run
            self.run = self.bridge = bridge_to(self, self.run)
            start_with_worker(self.runtime)
        elif inspect.iscoroutinefunction(inspect.unwrap(self.run)):
            self.run = _refusing_coroutines(self, self.run)

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Make the request follow the coroutine, and the runtime end with the worker."""
        super().on_bound(app)
        follow_context(cls.request_stack)
        close_with_worker(cls.runtime)

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        """Send the task, as Celery does. On the loop's thread that blocks the loop as long as it takes."""
        if hub.worker_hub is not None and (self.runtime or default_runtime()).is_current:
            # Celery's connections belong to the hub of the worker's greenlets, on another thread.
            return hub.worker_hub.call(partial(super().apply_async, *args, **kwargs))
        return super().apply_async(*args, **kwargs)

    def signature_from_request(self, request: Any = None, *args: Any, **kwargs: Any) -> Any:
        """
        Return the task as a signature, which `retry` sends.

        A retry that a coroutine asks for is sent when it has ended, by the thread that waits for
        it: sending blocks, and in a process of greenlets the broker's connections are not for the loop's thread.
        """
        signature: Any = super().signature_from_request(request, *args, **kwargs)
        body = current_body.get()
        if body is not None and (self.runtime or default_runtime()).is_current:
            send = signature.apply_async
            signature.apply_async = lambda: body.postponed.append(send)
        return signature

    def on_failure(self, exc: BaseException, *args: Any, **kwargs: Any) -> None:
        """Let the worker's log say what event loop fault a failure is the consequence of, if it is one."""
        if not self.is_async:  # else it has been said where the coroutine failed
            _explain(exc)
        super().on_failure(exc, *args, **kwargs)

    def apply(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task here and now, as eager mode does; an AdapterError on the loop's own thread."""
        if self.is_async and (self.runtime or default_runtime()).is_current:
            instead = f"await {self.__name__}(...), or await asyncio.to_thread({self.__name__}.apply, ...)"
            raise AdapterError(f"{self.name} would wait for itself, eagerly on the loop's own thread; {instead}")
        return super().apply(*args, **kwargs)


_BEHIND = "homeloop_coroutine_function"


def coroutine_behind(function: Any) -> Any:
    """Return the async function that a sync one made by `task_function` stands for; None if it stands for none."""
    return getattr(function, _BEHIND, None)


def set_coroutine_behind(function: Any, coroutine_function: Any) -> None:
    """Say which async function a sync one stands for."""
    setattr(function, _BEHIND, coroutine_function)


def bridge_to(task: Any, run: Callable[..., Any]) -> Callable[..., Any]:
    """Return what Celery calls for an async function: it runs it on the task's runtime, and waits."""
    chosen: LoopRuntime | None = getattr(task, "runtime", None)

    @wraps(run)  # with the real signature: Task.retry and typing checks look at it
    def call(*args: Any, **kwargs: Any) -> Any:
        if (replay := replayed.get()) is not None:  # the asyncio pool has run the coroutine already
            ran = current_body.get()
            ensure_held(task.request, None if ran is None else ran.postponed)
            try:
                return _no_coroutine(task, replay())
            except Exception as error:
                _explain(error)
                raise
        runtime = chosen or default_runtime()
        request = Context() if task.request_stack is None else task.request  # it has none before it is bound
        if runtime.is_current:
            return awaited(task, request, run(*args, **kwargs))
        soft_limit, hard_limit = own_limits(task, request)
        body = Body(partial(run, *args, **kwargs), soft_limit)

        @wraps(run)
        async def drive() -> Any:
            return await body.run()

        # What a direct call sets is set for its caller. A worker's thread is nobody's, and the next task's.
        in_context: Any = _here if request.called_directly else copy_context().run
        handle = handles.get(request.id) if request.id else None
        if handle is not None:
            handle.attach(body)
        try:
            with app_of(task):
                value = in_context(
                    _wait, runtime, body, partial(runtime.run, drive, timeout=hard_limit), hard_limit
                )
        except BaseException as error:
            if body.is_terminated:  # told to everybody already
                raise Ignore("terminated") from None
            if isinstance(error, (Exception, CancelledError)):  # what ends the thread or the process, does
                ensure_held(request, body.postponed)
            do_postponed(body.postponed)
            # Celery's tracer takes it for the end of the worker. Nobody else asked for it: who interrupts a wait,
            # or sets a limit, has another exception raised here.
            if isinstance(error, CancelledError) and not request.called_directly and not runtime.is_closed:
                raise SelfCancelledError(task.name) from error
            _explain(error)
            raise
        else:
            ensure_held(request, body.postponed)
            do_postponed(body.postponed)
            return _no_coroutine(task, value)
        finally:
            body.error = None
            if handle is not None:
                handle.detach()

    # wraps() sets __wrapped__, and through it inspect would take the bridge for what it wraps.
    call.__signature__ = inspect.signature(run)  # type: ignore[attr-defined]
    del call.__wrapped__
    return call


def _refusing_coroutines(task: Any, run: Callable[..., Any]) -> Callable[..., Any]:
    """Return what Celery calls for a sync function that a decorator has made of an async one."""

    @wraps(run)
    def call(*args: Any, **kwargs: Any) -> Any:
        return _no_coroutine(task, run(*args, **kwargs))

    call.__signature__ = inspect.signature(run)  # type: ignore[attr-defined]  # Celery does not look behind
    return call


def _no_coroutine(task: Any, value: Any) -> Any:
    """
    Return what a task has returned.

    Raises:
        AdapterError: A coroutine, which has done nothing. It is closed.
    """
    if not inspect.iscoroutine(value):
        return value
    value.close()
    if task.is_async:
        remedy = "await it there: return await ..."
    else:
        remedy = "let the decorator below @app.task make an async def that awaits the function"
    raise AdapterError(f"{task.name} returned a coroutine that nobody has awaited, so nothing was done; {remedy}")


def _explain(error: BaseException) -> None:
    """Add the diagnosis to an error, before Celery makes its traceback into text."""
    from homeloop import diagnose  # loaded where something fails, and nowhere else

    diagnose(error, note=True)


def do_postponed(postponed: Sequence[Callable[[], object]]) -> None:
    """Send what a coroutine that has ended wanted to be sent."""
    for send in postponed:
        try:
            send()
        except Exception as error:
            raise Reject(error, requeue=False) from error  # as Task.retry does


def _here(fn: Callable[..., Any], *args: Any) -> Any:
    """Call a function in the present context."""
    return fn(*args)


def _wait(chosen: LoopRuntime, body: Body, run: Callable[[], Any], hard_limit: float | None) -> Any:
    """Run a body to its end; translate how limits end it into what Celery knows."""
    try:
        value = _run(chosen, body, run, hard_limit)
    except (Exception, CancelledError) as error:
        if body.has_outlasted(hard_limit) and not isinstance(error, TimeLimitExceeded):
            raise _over(body, hard_limit) from error
        raise
    if body.has_outlasted(hard_limit):  # it was cancelled, and has made something else of that
        raise _over(body, hard_limit)
    return value


def _over(body: Body, hard_limit: float | None) -> TimeLimitExceeded:
    """Return what a hard limit ends a task with, whatever the coroutine has made of it."""
    body.postponed.clear()
    return TimeLimitExceeded(hard_limit)


def _run(chosen: LoopRuntime, body: Body, run: Callable[[], Any], hard_limit: float | None) -> Any:
    try:
        return run()
    except SoftLimitReached as reached:
        raise SoftTimeLimitExceeded(*reached.args).with_traceback(reached.__traceback__) from None
    except SoftTimeLimitExceeded:
        if is_pool_child() and not body.has_ended:
            _outwait(chosen, body, hard_limit)
        if body.outcome is not None:  # the coroutine has handled the limit, or was faster
            return body.outcome[0]
        if body.is_limited and isinstance(body.error, Exception) and not isinstance(body.error, SoftLimitReached):
            raise body.error from None
        raise
    except CallTimeoutError as error:
        if error is body.error:  # of a call that the coroutine made
            raise
        if error.abandoned and is_pool_child():
            # The coroutine, or the loop, does not end. The pool's own limit, due any moment, ends the process.
            time.sleep(chosen.grace + 2 * KILL_MARGIN)
        raise _over(body, hard_limit) from error


def _outwait(chosen: LoopRuntime, body: Body, hard_limit: float | None) -> None:
    """
    See to a body that did not end within the grace after its soft limit. Thread: a child's of a prefork pool.

    Raises:
        TimeLimitExceeded: It did not end within its hard limit either.
    """
    if hard_limit is not None:
        # For Celery the task must not end before its coroutine: then nothing would kill a child that is stuck.
        if body.wait_end(hard_limit):
            return
        body.cancel()
        if not body.wait_end(hard_limit + chosen.grace):
            time.sleep(2 * KILL_MARGIN)  # the pool's own limit, due any moment, ends the process
        raise _over(body, hard_limit)
    if not body.is_limited:  # the loop has not even told it
        chosen.replace_loop()
