"""The prefetch count that a worker restores after it has connected anew: where the socket is read."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

from typing import Any

from celery import bootsteps


class RestorePrefetchInTurn(bootsteps.Step):  # type: ignore[misc]  # Celery ships no types
    """
    A step of the worker's consumer, for RabbitMQ (kombu 5.7 needs no such count with RabbitMQ 4).

    After a reconnect Celery takes fewer messages, and one more with each task that ends. It asks RabbitMQ for that
    where the task has ended: on the threads pool on the task's thread, which then reads the answer from the socket
    that the worker's main thread reads too. Each gets parts of the other's frames, and the worker waits or spins
    for ever. With greenlets the libraries refuse the second reader. So the consumer does it in its turn.

    Source: ``Consumer.create_task_handler`` of Celery 5.5 to 5.7.
    """

    def create(self, parent: Any) -> None:
        """Take the place of the consumer's method, which is looked up for each message."""
        restore = getattr(parent, "_restore_prefetch_count_after_connection_restart", None)
        if restore is None:  # a Celery that does not do so
            return

        def in_turn(*args: Any) -> None:
            # The connection may be lost by then: the next one begins with a count of its own. The maximum is 0,
            # which RabbitMQ takes for no bound, under gevent before Celery 5.7 while no task runs.
            if parent.connection is not None and parent.connection.connected and parent.max_prefetch_count:
                restore(*args)

        def later(*args: Any) -> None:
            parent.call_soon(in_turn, *args)

        parent._restore_prefetch_count_after_connection_restart = later
