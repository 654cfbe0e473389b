"""What became of a task's coroutine, for the bridge that Celery's tracer calls after the coroutine has ended."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

replayed: ContextVar[Callable[[], Any] | None] = ContextVar("homeloop_celery_replayed", default=None)
"""Returns or raises once what the coroutine did; set by the asyncio pool, in the context of that one task."""
