"""What a block may change in the driver's connection itself, and no SQL undoes: codecs, loggers, listeners."""

from collections.abc import Awaitable, Callable
from functools import cache, wraps
from typing import Any

import asyncpg

_CHANGES = ("set_type_codec", "set_builtin_type_codec", "reset_type_codec")


@cache
def watched(kind: Any) -> Any:  # Any: a class of connections, of the driver's or a user's making
    """Return a subclass of a connection class whose connections know whether they were changed."""
    body: dict[str, object] = {name: _noted(getattr(kind, name)) for name in _CHANGES}
    body.update(
        __slots__=("homeloop_callbacks", "homeloop_codecs"), __module__=kind.__module__, __doc__=kind.__doc__
    )
    return type(kind)(kind.__name__, (kind,), body)


def _noted(change: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @wraps(change)
    async def change_and_note(connection: Any, *args: Any, **kwargs: Any) -> None:
        connection.homeloop_codecs = True
        await change(connection, *args, **kwargs)

    return change_and_note


def note_unchanged(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Take a connection of a watched class, as it is, for unchanged."""
    own: Any = connection
    own.homeloop_codecs = False
    own.homeloop_callbacks = _callbacks(own)


def is_changed(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    """Tell whether a block changed codecs, or left a query logger or a termination listener."""
    own: Any = connection
    return bool(own.homeloop_codecs) or own.homeloop_callbacks != _callbacks(own)


def _callbacks(connection: Any) -> tuple[frozenset[object], frozenset[object]]:
    return frozenset(connection._query_loggers), frozenset(connection._termination_listeners)
