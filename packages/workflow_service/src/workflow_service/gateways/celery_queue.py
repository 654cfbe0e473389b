"""The broker as a wake-up: a Celery producer behind the JobQueue port."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

from celery import Celery
from kombu.pools import ProducerPool

from workflow_service.contracts import EXECUTE_RUN, QUEUE
from workflow_service.ports import QueueUnavailableError

_SOCKET_TIMEOUT = (
    3.0  # seconds a thread may wait for the broker at one point; ends the thread, not only our waiting
)
_SEND_TIMEOUT = 10.0  # seconds for a send as a whole: a stale connection is replaced once
_THREADS = 4
_FILE_BROKER = "safefs://"


class CeleryJobQueue:
    """Fits the JobQueue port.

    Celery's producer blocks, so sends run in threads; in threads of their own, because a broker that hangs
    would take all of the loop's, and stop what has nothing to do with it.
    """

    def __init__(self, broker_url: str) -> None:
        """Send to the broker at ``broker_url``. Nothing is connected before the first send."""
        self._app = _producer(broker_url)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="broker")
        # Of its own: Celery's are kombu's, which stay open as long as the process lives.
        self._connections: Any = self._app.connection_for_write().Pool(_THREADS)  # Any: kombu ships no types
        self._producers: Any = ProducerPool(self._connections, limit=_THREADS)  # type: ignore[no-untyped-call]

    async def enqueue(self, run_id: UUID) -> None:
        """Tell the workers that a run is queued.

        Raises:
            QueueUnavailableError: The broker did not take it within 10 s. The message may still arrive.

        Cancellation: returns at once; the thread ends by itself within its socket time-outs.
        """
        await self._call(self._send, str(run_id))

    async def is_reachable(self) -> bool:
        """Return whether the broker lets us in."""
        try:
            await self.check()
        except QueueUnavailableError:
            return False
        return True

    async def check(self) -> None:
        """Log in to the broker.

        Raises:
            QueueUnavailableError: It did not let us in; the cause is the broker library's own error.

        Cancellation: as `enqueue`.
        """
        await self._call(self._connect)

    async def aclose(self) -> None:
        """End the threads and close the connections to the broker. The queue cannot be used afterwards.

        Waits for sends under way, at most their socket time-outs; those that wait for a thread are cancelled.
        """
        await asyncio.to_thread(self._close)

    async def _call(self, function: Callable[..., None], *args: str) -> None:
        try:
            async with asyncio.timeout(_SEND_TIMEOUT):
                await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)
        except Exception as error:  # a refused login and a full memory are of classes of each library's own
            reason = str(error) or type(error).__name__
            raise QueueUnavailableError(
                f"the broker did not take the message ({reason}); check BROKER_URL and its server"
            ) from error

    def _send(self, run_id: str) -> None:
        with self._producers.acquire(block=True) as producer:
            self._app.send_task(EXECUTE_RUN, args=(run_id,), queue=QUEUE, ignore_result=True, producer=producer)

    def _close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        for pool in (self._producers, self._connections):
            pool.force_close_all()
        self._app.close()

    def _connect(self) -> None:
        with self._app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=_SOCKET_TIMEOUT)


def _producer(broker_url: str) -> Celery:
    if broker_url.startswith(_FILE_BROKER):
        # Only the embedded default needs it; it teaches kombu the alias.
        from workflow_service.gateways import filesystem_broker

        filesystem_broker.register()
    app = Celery("workflow_service.producer", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_default_queue=QUEUE,
        task_ignore_result=True,
        task_publish_retry=True,
        # One retry replaces a pooled connection that has gone stale; the reaper is the real retry.
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0},
        broker_connection_timeout=_SOCKET_TIMEOUT,
        broker_transport_options=_transport_options(broker_url),
    )
    return app


def _transport_options(broker_url: str) -> dict[str, Any]:  # Any: each transport's own
    scheme = broker_url.partition(":")[0].partition("+")[0]
    if scheme in ("redis", "rediss"):
        return {"socket_timeout": _SOCKET_TIMEOUT, "socket_connect_timeout": _SOCKET_TIMEOUT}
    if scheme in ("amqp", "amqps", "pyamqp"):
        # Without confirmation a message written to a dying socket is lost without a word.
        return {"confirm_publish": True, "read_timeout": _SOCKET_TIMEOUT, "write_timeout": _SOCKET_TIMEOUT}
    return {}
