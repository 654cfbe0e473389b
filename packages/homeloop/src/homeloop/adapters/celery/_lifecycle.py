"""When a worker's runtimes start and end, by the signals that each pool sends."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from celery import signals
from celery.utils.log import get_logger

from homeloop import LoopRuntime, default_runtime
from homeloop.adapters.celery._worker import is_prefork

logger = get_logger(__name__)

WarmUp = Callable[[], Awaitable[object]]


def start_with_worker(runtime: LoopRuntime | None, warm_up: Sequence[WarmUp] = (), owner: object = None) -> None:
    """
    Start a runtime, and warm up what it serves, in each process of a worker that runs tasks.

    Repeated calls for the same runtime and owner count once.
    """
    started_in: set[int] = set()  # process ids; solo sends both signals

    def start(**_: Any) -> None:
        if os.getpid() in started_in:
            return
        started_in.add(os.getpid())
        chosen = runtime or default_runtime()
        chosen.start()
        for warm in warm_up:
            try:
                chosen.run(warm)
            except Exception:
                # The first task that needs it will try again, and fail with the reason.
                logger.exception("%r could not be warmed up", warm)

    def start_in_worker(**_: Any) -> None:
        if not is_prefork():  # whose parent runs no tasks, and must have no loop when it forks
            start()

    uid = f"homeloop.start.{id(runtime)}.{id(owner)}"
    signals.worker_process_init.connect(start, weak=False, dispatch_uid=uid)
    signals.worker_ready.connect(start_in_worker, weak=False, dispatch_uid=uid)


def close_with_worker(runtime: LoopRuntime | None) -> None:
    """Close a runtime when a warm shutdown ends its process. After a cold one the interpreter's exit closes it."""

    def close(**_: Any) -> None:
        (runtime or default_runtime()).close()

    # Held by Celery strongly (weak=False); the uid makes a second connection of the same runtime harmless.
    for each in (signals.worker_process_shutdown, signals.worker_shutdown):
        each.connect(close, weak=False, dispatch_uid=f"homeloop.close.{id(runtime)}")
