"""Celery's ``pydantic=True`` for coroutine functions, which its wrapper would call and not await."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any

from celery import Celery
from celery.app.base import pydantic_wrapper

Function = Callable[..., Coroutine[Any, Any, Any]]

_OPTIONS = ("pydantic_strict", "pydantic_context", "pydantic_dump_kwargs")


class _Call:
    """What Celery's wrapper has made of a call's arguments; then what the coroutine has returned."""

    def __init__(self) -> None:
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}
        self.returned: Any = None


_current: ContextVar[_Call] = ContextVar("homeloop_celery_pydantic")


def with_models(app: Celery, fun: Function, options: dict[str, Any]) -> tuple[Function, dict[str, Any]]:
    """
    Return a task's function that is given models and whose model is dumped, and what is left of its options.

    Celery's own wrapper does both. It is called twice for each call, around a function that takes the arguments
    the first time and returns the coroutine's value the second time.
    """

    @wraps(fun)
    def stand_in(*args: Any, **kwargs: Any) -> Any:
        call = _current.get()
        call.args, call.kwargs = args, kwargs
        return call.returned

    name = options.get("name") or app.gen_task_name(fun.__name__, fun.__module__)
    strict, context, dump_kwargs = (options.get(each) for each in _OPTIONS)
    celerys: Any = pydantic_wrapper(app, stand_in, name, bool(strict), context, dump_kwargs)

    def through(call: _Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        token = _current.set(call)
        try:
            return celerys(*args, **kwargs)
        finally:
            _current.reset(token)

    @wraps(fun)
    async def run(*args: Any, **kwargs: Any) -> Any:
        call = _Call()
        through(call, args, kwargs)
        given = call.args, call.kwargs
        call.returned = await fun(*call.args, **call.kwargs)
        return through(call, *given)

    left = {each: value for each, value in options.items() if each not in ("pydantic", *_OPTIONS)}
    if hasattr(celerys, "dump_arguments"):  # since Celery 5.7: models may be passed to `delay`
        dump = partial(celerys.dump_arguments, bound=bool(options.get("bind")))
        left["_dump_pydantic_arguments"] = staticmethod(dump)
    return run, left
