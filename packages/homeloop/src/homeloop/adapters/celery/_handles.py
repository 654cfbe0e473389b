"""The tasks that a worker has begun in this process, for those who may want to end them early."""

from typing import Protocol
from weakref import WeakValueDictionary


class Terminable(Protocol):
    def terminate(self) -> None: ...


class Handle:
    """A begun task: `terminate` reaches its body, also one that is made later."""

    _body: Terminable | None = None
    _is_terminated = False

    def attach(self, body: Terminable) -> None:
        """Name the body that is about to run."""
        self._body = body
        if self._is_terminated:
            body.terminate()

    def detach(self) -> None:
        """The body has ended."""
        self._body = None

    def terminate(self) -> None:
        """End the body. Thread: any."""
        self._is_terminated = True
        if (body := self._body) is not None:
            body.terminate()


handles: WeakValueDictionary[str, Handle] = WeakValueDictionary()
"""By task id. Each is held by the worker's request, so it is gone when Celery has forgotten the task."""
