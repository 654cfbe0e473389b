"""The hub of a worker whose tasks are greenlets: what signal handlers and the loop's thread need of it."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import logging
import os
import select
import signal
import sys
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any

from celery import bootsteps, signals

from homeloop.adapters.celery._worker import is_green

Spawn = Callable[..., object]
"""Starts a greenlet."""


class WorkerHub:
    """
    Calls functions in greenlets of the hub that Celery's connections belong to, for other threads.

    Args:
        spawn: Starts a greenlet of the calling thread's hub.

    Thread: made on the hub's.
    """

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn
        self._jobs: deque[Callable[[], None]] = deque()
        self._reader, self._writer = os.pipe()
        spawn(self._serve)

    def _serve(self) -> None:
        while True:
            select.select([self._reader], [], [])  # the patched one: other greenlets go on
            os.read(self._reader, 4096)
            while self._jobs:
                self._spawn(self._jobs.popleft())

    def call(self, fn: Callable[[], Any]) -> Any:
        """Call ``fn`` there in a copy of the caller's context, return or raise what it does. Blocks the thread."""
        context = copy_context()
        reader, writer = os.pipe()
        outcome: dict[str, Any] = {}

        def job() -> None:
            try:
                outcome["value"] = context.run(fn)
            except BaseException as error:
                outcome["error"] = error
            os.write(writer, b"\0")

        try:
            self._jobs.append(job)
            os.write(self._writer, b"\0")
            os.read(reader, 1)
        finally:
            os.close(reader)
            os.close(writer)
        if "error" in outcome:
            raise outcome.pop("error")
        return outcome["value"]


worker_hub: WorkerHub | None = None
"""This process's; None unless it is a worker of greenlets."""


class _InGreenlet:
    """
    A signal handler that may block in a process of greenlets.

    Python calls handlers in whatever greenlet runs, which is mostly the hub; there Celery's handler
    of a cold shutdown fails with its first wait, and the worker hangs.
    """

    def __init__(self, handler: Callable[..., Any], spawn: Spawn) -> None:
        self._handler = handler
        self._spawn = spawn

    def __call__(self, *args: Any) -> None:
        self._spawn(self._handler, *args)


class CancelWithoutAnswer(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery ships no types
    """
    A step of the consumer in a worker whose tasks are greenlets, for RabbitMQ.

    The handler of a cold shutdown cancels the consumer before the tasks, and would wait for the answer. But the
    consumer's own greenlet reads that socket, and the libraries refuse a second reader: unless the answer was
    there at once the handler ended, and no task was cancelled. So nobody is told to wait for it.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def include_if(self, parent: Any) -> bool:
        """Tell whether this worker needs it."""
        return is_green()

    def start(self, parent: Any) -> None:
        """Have the present connection's consumer cancelled so."""
        if parent.connection.transport.driver_name == "py-amqp":
            channel = parent.task_consumer.channel
            channel.basic_cancel = partial(channel.basic_cancel, nowait=True)


def _let_handlers_block(spawn: Spawn) -> None:
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):  # the last by REMAP_SIGTERM
        handler = signal.getsignal(number)
        if callable(handler) and not isinstance(handler, _InGreenlet):
            signal.signal(number, _InGreenlet(handler, spawn))


def _let_threads_log() -> None:
    """
    Give logging real locks again. Eventlet's are for greenlets of one thread.

    The loop has a thread of its own. If a coroutine logs while a greenlet does, one of the two waits for a lock
    that is released on the other thread, where eventlet fails to wake it ("Cannot switch to a different thread"):
    it waits for ever, and if that is the loop, so does everybody.
    """
    if "eventlet" not in sys.modules:
        return
    new_lock = sys.modules["eventlet"].patcher.original("_thread").RLock
    untyped: Any = logging
    untyped._lock = new_lock()
    for reference in untyped._handlerList:
        handler = reference()
        if handler is not None and handler.lock is not None:
            handler.lock = new_lock()


def _on_ready(sender: Any, **_: Any) -> None:
    global worker_hub
    if not is_green():
        return
    _let_threads_log()
    spawn = sender.pool.spawn_n
    worker_hub = WorkerHub(spawn)
    _let_handlers_block(spawn)
    # Celery's handlers put others in their place, and then send this signal.
    signals.worker_shutting_down.connect(
        lambda **_: _let_handlers_block(spawn), weak=False, dispatch_uid="homeloop.handlers"
    )


signals.worker_ready.connect(_on_ready, weak=False, dispatch_uid="homeloop.hub")
