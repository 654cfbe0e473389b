"""When a worker's runtimes start and end, by the signals that each pool sends."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from celery import Celery, signals
from celery.utils.log import get_logger

from homeloop import LoopRuntime, default_runtime
from homeloop.adapters.celery._worker import is_pool_child, is_prefork

logger = get_logger(__name__)

WarmUp = Callable[[], Awaitable[object]]


WARM_UP_TIMEOUT = 30.0
"""Seconds that warm-ups may take, unless somebody says otherwise. A guess."""

_NOTICE = 1.0
"""Seconds after which a worker that does not start yet says what it waits for. A guess."""

_UP_MARGIN = 1.5
"""Seconds that a prefork child has, after its warm-up, to tell the worker that it is up."""


def start_with_worker(runtime: LoopRuntime | None) -> None:
    """Start a runtime in each process of a worker that runs tasks. Repeated calls for the same one count once."""
    _at_start(runtime, f"homeloop.start.{id(runtime)}", lambda _: None)


def warm_up_with_worker(
    app: Celery,
    runtime: LoopRuntime | None,
    warm_up: Sequence[WarmUp],
    timeout: float = WARM_UP_TIMEOUT,
    owner: object = None,
) -> None:
    """
    Start a runtime, and warm up what it serves, in each process of a worker that runs tasks.

    Repeated calls for the same runtime and owner count once.

    Args:
        timeout: Seconds for all of ``warm_up``; see `install`.
        owner: Who asks; the app if None.
    """

    def warm(chosen: LoopRuntime) -> None:
        seconds = timeout
        if is_pool_child():  # Celery kills a child that it has started anew if that is not up by then
            untyped: Any = app
            seconds = min(timeout, max(_UP_MARGIN, untyped.conf.worker_proc_alive_timeout - _UP_MARGIN))
        _warm_up(chosen, warm_up, seconds)

    _at_start(runtime, f"homeloop.warm_up.{id(runtime)}.{id(owner or app)}", warm)


def _warm_up(runtime: LoopRuntime, warm_up: Sequence[WarmUp], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    for warm in warm_up:
        text = "the worker's process %d waits for warm_up %r, at most %g s for all of them"
        notice = threading.Timer(_NOTICE, logger.warning, (text, os.getpid(), warm, timeout))
        notice.daemon = True
        notice.start()
        try:
            runtime.run(warm, timeout=max(0.0, deadline - time.monotonic()))
        except Exception:
            # The first task that needs it will try again, and fail with the reason.
            logger.exception("%r could not be warmed up", warm)
        finally:
            notice.cancel()


def _at_start(runtime: LoopRuntime | None, uid: str, then: Callable[[LoopRuntime], None]) -> None:
    started_in: set[int] = set()  # process ids; solo sends both signals

    def start(**_: Any) -> None:
        if os.getpid() in started_in:
            return
        started_in.add(os.getpid())
        chosen = runtime or default_runtime()
        chosen.start()
        then(chosen)

    def start_in_worker(**_: Any) -> None:
        if not is_prefork():  # whose parent runs no tasks, and must have no loop when it forks
            start()

    signals.worker_process_init.connect(start, weak=False, dispatch_uid=uid)
    signals.worker_ready.connect(start_in_worker, weak=False, dispatch_uid=uid)


def close_with_worker(runtime: LoopRuntime | None) -> None:
    """Close a runtime when a warm shutdown ends its process. After a cold one the interpreter's exit closes it."""

    def close(**_: Any) -> None:
        (runtime or default_runtime()).close()

    # Held by Celery strongly (weak=False); the uid makes a second connection of the same runtime harmless.
    for each in (signals.worker_process_shutdown, signals.worker_shutdown):
        each.connect(close, weak=False, dispatch_uid=f"homeloop.close.{id(runtime)}")
