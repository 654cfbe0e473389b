"""A task's message as recovery keeps it, sealed, and how it is sent again."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import base64
from typing import Any

from celery import Celery, Task
from celery.app.task import Context
from cryptography.fernet import MultiFernet
from kombu import serialization

from homeloop.adapters.celery import _hub as hub
from homeloop.adapters.celery._keys import seal, unseal
from homeloop.adapters.celery._users import keeps_user
from homeloop.errors import TaskLostError


class Messages:
    """
    Seals what recovery keeps of an app's tasks, and sends it.

    What is sealed is good for the task it was sealed for alone, and for what it was sealed as.
    """

    def __init__(self, app: Celery, fernet: MultiFernet) -> None:
        self._app = app
        self._fernet = fernet

    def seal(self, kind: str, task_id: str, value: Any) -> bytes:
        """Seal a value that JSON knows."""
        return seal(self._fernet, self._kind(kind), task_id, value)

    def open(self, kind: str, task_id: str, sealed: bytes) -> Any:
        """
        Return what `seal` was given.

        Raises:
            UserContextError: It was not sealed with one of the keys, or as something else.
        """
        return unseal(self._fernet, self._kind(kind), task_id, sealed)[0]

    def _kind(self, kind: str) -> str:
        return f"recovery {kind} of app {self._app.main}"

    def take(self, task: Any, request: Any) -> bytes:
        """Seal all that it takes to send a task's message again."""
        # Celery's own way to repeat a message, as for a retry; not AsyncTask's, which would postpone it.
        whole: Any = Task.signature_from_request(task, request)
        # It has begun in time. How its arguments are shown is its sender's choice: they may be secret.
        shown = {name: request.get(name) for name in ("argsrepr", "kwargsrepr")}
        content = [list(whole.args), dict(whole.kwargs), {**whole.options, **shown, "expires": None}]
        dumps: Any = serialization.dumps
        kind, encoding, body = dumps(content, task.serializer)
        if isinstance(body, str):
            body = body.encode(encoding)
        return self.seal("message", request.id, [kind, encoding, base64.b64encode(body).decode()])

    def send(self, name: str, task_id: str, message: bytes) -> None:
        """Send a task's message again. Blocks; thread: any but a loop's."""
        args, kwargs, options = self._content(task_id, message)
        signature = self._app.signature(name, args, kwargs, **options)

        def publish() -> None:
            token = keeps_user.set(True)
            try:
                signature.apply_async()
            finally:
                keeps_user.reset(token)

        if hub.worker_hub is not None:
            hub.worker_hub.call(publish)  # Celery's connections belong to it
        else:
            publish()

    def bury(self, name: str, task_id: str, message: bytes, error: TaskLostError) -> None:
        """Tell those who wait for a task, its chord and its errbacks, that it has failed. Blocks, as `send`."""
        args, kwargs, options = self._content(task_id, message)
        request = Context(
            options, id=task_id, task=name, args=args, kwargs=kwargs, group=options.get("group_id"),
            errbacks=options.get("link_error"), callbacks=options.get("link"),
        )  # fmt: skip
        tell = self._app.backend.mark_as_failure
        if hub.worker_hub is not None:
            hub.worker_hub.call(lambda: tell(task_id, error, request=request))
        else:
            tell(task_id, error, request=request)

    def _content(self, task_id: str, message: bytes) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
        kind, encoding, body = self.open("message", task_id, message)
        loads: Any = serialization.loads
        content: Any = loads(base64.b64decode(body), kind, encoding, accept={kind})
        args, kwargs, options = content
        return args, kwargs, options
