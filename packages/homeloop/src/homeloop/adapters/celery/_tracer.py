"""
Celery's tracer in parts: what comes before a task's function; what comes after, up to its result; and the rest.

The tracer calls the function and waits for it. A copy of its code has one ``yield`` more, right before that
call, so it stops there and goes on when the coroutine has ended; then the call only hands over what became of
it (`replayed`). Another one comes before the call that stores the result, which is left out if the pool has
stored it meanwhile. All else that Celery does around a task is done by Celery's own code.
"""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import ast
import inspect
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from functools import cache
from types import CodeType, FunctionType
from typing import Any, Final

import celery
from celery.app import autoretry, trace
from celery.app.task import Task
from celery.utils.log import get_logger

from homeloop.adapters.celery._replay import replayed
from homeloop.errors import AdapterError

logger = get_logger(__name__)

BODY: Final = object()
"""What `Steps.before` returns when the coroutine comes next."""

RESULT: Final = object()
"""What `Steps.after` returns when the result is to be stored next."""

Tracer = Generator["tuple[Any, ...] | None", "bool | None", Any]

_stepping: ContextVar["Steps | None"] = ContextVar("homeloop_celery_stepping", default=None)


class SplitTracer:
    """
    Stands in for a task's tracer: the whole of it to everybody but `Steps`.

    Args:
        task: An `AsyncTask` with an ``async def`` function.
        whole: The tracer that Celery has built for it.

    Raises:
        AdapterError: This tracer, or the way from it to the function, is not the one this module knows.
    """

    def __init__(self, task: Any, whole: Any) -> None:
        self.function = _coroutine_function(task)
        self.whole = whole
        plain, parted = _codes()
        if not isinstance(whole, FunctionType) or whole.__code__ is not plain:
            raise AdapterError(f"its tracer is not Celery's own but {_origin(whole)}")
        code_of = (parted, whole.__globals__, whole.__name__, whole.__defaults__, whole.__closure__)
        self.parted: Callable[..., Tracer] = FunctionType(*code_of)

    def __call__(self, uuid: str, args: Any, kwargs: Any, request: Any = None) -> Any:
        """Trace the task; one step of it, if that is what the caller is in."""
        steps = _stepping.get()
        if steps is None:
            return self.whole(uuid, args, kwargs, request)
        _stepping.set(None)  # what is traced from in there is traced whole
        return steps.trace(self.parted, uuid, args, kwargs, request)


class Tracers:
    """Puts a `SplitTracer` in the place of an async task's tracer, where that can be. Thread: one at a time."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._whole: dict[str, Any] = {}  # what it is not possible for, by the task's name

    def of(self, task: Any) -> SplitTracer | None:
        """Return a task's tracer; None if the task is to run on a thread from start to end."""
        tracer = task.__trace__
        if isinstance(tracer, SplitTracer):
            return tracer
        if tracer is None:  # the task was registered after the worker had started
            tracer = task.__trace__ = trace.build_tracer(task.name, task, self._app.loader, app=self._app)
        if tracer is self._whole.get(task.name):
            return None
        if getattr(task, "is_async", False):
            try:
                task.__trace__ = SplitTracer(task, tracer)
                return task.__trace__  # type: ignore[no-any-return]
            except AdapterError as reason:
                logger.warning("task %s takes a thread for as long as it runs: %s", task.name, reason)
        self._whole[task.name] = tracer
        return None


class Steps:
    """
    One task's way through its tracer: `before`, the coroutine of `args` and `kwargs`, then `after`, and `finish`
    if there is a result; or `close`.

    Args:
        target: What Celery gives a pool to call: decodes the message, then calls the task's `SplitTracer`.
        message: The arguments for that.

    Attributes:
        result: The arguments of Celery's `mark_as_done`, which comes next: the task's id, what it has returned,
            its request, and whether to store that.

    Thread: any, one at a time, and all in the same context.
    """

    def __init__(self, target: Callable[..., Any], message: tuple[Any, ...]) -> None:
        self._target = target
        self._message = message
        self._tracer: Tracer | None = None
        self._is_stored: bool | None = None
        self.args: Any = ()
        self.kwargs: Any = {}
        self.result: tuple[Any, ...] | None = None

    def before(self) -> Any:
        """Do what precedes the coroutine; return `BODY`, or the target's result if it does not get that far."""
        try:
            return self._step(self._message)
        except _Paused:
            return BODY

    def after(self, outcome: Callable[[], Any]) -> Any:
        """
        Do what follows the coroutine, which ``outcome`` returns or raises.

        Returns:
            `RESULT` if there is one to be stored, in which case `finish` is due; else the target's result.
        """

        def once() -> Any:
            replayed.set(None)  # what is called from now on (an errback, on_success) is a task of its own
            return outcome()

        replayed.set(once)
        try:
            return self._go_on()
        except _Paused:
            return RESULT
        finally:
            replayed.set(None)

    def finish(self, is_stored: bool) -> Any:
        """Do what follows the result, after it was stored unless it ``is_stored``; return the target's result."""
        self._is_stored, self.result = is_stored, None
        return self._go_on()

    def close(self) -> None:
        """End the tracer where it stands: nothing is stored or sent, ``task_postrun`` receivers are told."""
        if self._tracer is not None:
            self._tracer.close()

    def trace(self, parted: Callable[..., Tracer], *call: Any) -> Any:
        """Advance the tracer; called by the target, through the task's `SplitTracer`."""
        if self._tracer is None:
            _, self.args, self.kwargs, _ = call
            self._tracer = parted(*call)
        try:
            self.result = self._tracer.send(self._is_stored)
        except StopIteration as end:
            return end.value
        raise _Paused

    def _go_on(self) -> Any:
        decoded = (self.args, self.kwargs, None), None, None  # no content type: nothing to decode
        return self._step((*self._message[:3], *decoded))

    def _step(self, message: tuple[Any, ...]) -> Any:
        _stepping.set(self)
        try:
            return self._target(*message)
        finally:
            _stepping.set(None)


class _Paused(BaseException):
    """Leaves the target, which takes it for none of its own exceptions, when the tracer has stopped."""


def _coroutine_function(task: Any) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return what a task's bridge runs on the loop, if between Celery's tracer and the bridge is Celery alone."""
    for kind in type(task).__mro__:
        if kind is Task:
            break
        if "__call__" in vars(kind):
            raise AdapterError(f"{kind.__qualname__} has a __call__ of its own")
    bridge = task.run
    if hasattr(task, "_orig_run"):
        if getattr(bridge, "__globals__", None) is not vars(autoretry):
            raise AdapterError(f"its run is wrapped by {_origin(bridge)}")
        bridge = task._orig_run
    if bridge is not task.bridge:
        raise AdapterError(f"its run is wrapped by {_origin(bridge)}")
    return task.coroutine_function  # type: ignore[no-any-return]


def _origin(function: Any) -> str:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    code = getattr(function, "__code__", None)
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code else name


@cache
def _codes() -> tuple[CodeType, CodeType]:
    """
    Return the code of Celery's tracer, as it is and with each ``yield``.

    Raises:
        AdapterError: Its source is not there, is not what runs, or calls the function, or stores the result, not
            exactly once.
    """
    running = _tracer_code(getattr(trace.build_tracer, "__code__", None))
    if running is None:
        raise AdapterError(f"celery.app.trace.build_tracer is replaced by {_origin(trace.build_tracer)}")
    try:
        tree = _parsed(inspect.getsource(trace))  # all of it, so that tracebacks show Celery's lines
    except OSError as error:
        raise AdapterError(f"the source of Celery's tracer is not there: {error}") from error
    written = _compiled(tree)
    if written is None or written.co_code != running.co_code:
        raise AdapterError("the source of Celery's tracer is not the one that runs")
    splitting = _Splitting()
    parted = _compiled(ast.fix_missing_locations(splitting.visit(tree)))
    found = splitting.calls, splitting.results
    if found != (1, 1) or parted is None or parted.co_freevars != running.co_freevars:
        raise AdapterError(
            f"the tracer of Celery {celery.__version__} calls the task {found[0]} times and stores its result "
            f"{found[1]} times; once each is known: upgrade homeloop, or use a Celery it was tested with"
        )
    return running, parted


def _parsed(source: str) -> ast.Module:
    for _ in range(_ATTEMPTS):
        try:
            return ast.parse(source)
        except SystemError:  # CPython 3.11 loses count of its recursion when another thread parses, too
            continue
    raise AdapterError("the source of Celery's tracer cannot be parsed")


_ATTEMPTS = 10

_STORE = "task.backend.mark_as_done"


def _compiled(tree: ast.Module) -> CodeType | None:
    module = compile(tree, trace.__file__, "exec", dont_inherit=True)
    return _tracer_code(_nested(module, "build_tracer"))


def _tracer_code(builder: CodeType | None) -> CodeType | None:
    return None if builder is None else _nested(builder, "trace_task")


def _nested(code: CodeType, name: str) -> CodeType | None:
    found = [const for const in code.co_consts if isinstance(const, CodeType) and const.co_name == name]
    return found[0] if len(found) == 1 else None


class _Splitting(ast.NodeTransformer):
    """
    Changes two statements of ``trace_task``.

    Before the assignment of ``fun(...)`` comes a ``yield``. The call of ``task.backend.mark_as_done(...)`` gets a
    condition: what a ``yield`` of its arguments does not answer by true.
    """

    def __init__(self) -> None:
        self.calls = self.results = 0
        self._inside = False

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        was_inside, self._inside = self._inside, node.name == "trace_task"
        self.generic_visit(node)
        self._inside = was_inside
        return node

    def visit_Assign(self, node: ast.Assign) -> Any:
        call = node.value
        if not (self._inside and isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            return self.generic_visit(node)
        if call.func.id != "fun":
            return self.generic_visit(node)
        self.calls += 1
        pause = ast.copy_location(ast.Expr(ast.copy_location(ast.Yield(), node)), node)
        return [pause, node]

    def visit_Expr(self, node: ast.Expr) -> Any:
        call = node.value
        if not (self._inside and isinstance(call, ast.Call) and ast.unparse(call.func) == _STORE):
            return self.generic_visit(node)
        self.results += 1
        pause = ast.Yield(ast.Tuple(list(call.args), ast.Load()))
        unless = ast.If(ast.UnaryOp(ast.Not(), pause), [node], [])
        return ast.copy_location(unless, node)

    def visit_Name(self, node: ast.Name) -> ast.Name:
        # Any other use of it might be a second call in disguise.
        self.calls += self._inside and node.id == "fun"
        return node
