"""The user on whose behalf a task runs: sealed into its message, restored before its body, gone after it."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import inspect
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar, overload

from celery import Celery, current_task, signals
from cryptography.fernet import MultiFernet

from homeloop import User, as_user, current_user
from homeloop.adapters.celery._arguments import check_number, check_task_function, check_whole
from homeloop.adapters.celery._function import task_function
from homeloop.adapters.celery._keys import fernet_of, seal, unseal
from homeloop.adapters.celery._recoverable import Options, recovered
from homeloop.adapters.celery._task import coroutine_behind
from homeloop.errors import ConfigurationError, UserContextError

P = ParamSpec("P")
T = TypeVar("T")

HEADER = "homeloop-user"

keeps_user: ContextVar[bool] = ContextVar("homeloop_keeps_user", default=False)
"""Set around the publishing of a message whose header is still good: the same task's, sent again."""

_AWARE = "homeloop_user_aware"
"""The attribute of a function by which its task is known to run on behalf of its caller's user."""

_REFUSAL = "unsealed: "
"""How a header begins that holds, for the worker to raise, why there is no user in it. No token begins so."""


class UserSeal:
    """
    Encrypts and signs a user for one task's message.

    What it makes can be read, and made, only with one of the keys. It is good for the task it was
    made for and for nothing else, and no longer than ``ttl`` after the user's own call: retries and
    the tasks that a task calls keep that moment.

    Args:
        keys: Fernet keys, the newest first: it seals, all of them open. To change keys put a new one
            in front everywhere, and take the old one away after ``ttl``.
        ttl: Seconds.

    Raises:
        ConfigurationError: ``ttl`` is no finite number above 0.
        UserContextError: There is no key, or one is none.
    """

    def __init__(self, keys: Sequence[str | bytes], *, ttl: float = 86400.0) -> None:
        check_number("carrying users", "ttl", ttl, above_least=True)
        self.fernet = fernet_of(keys)
        self._ttl = ttl

    def seal(self, user: User, task_id: str, since: int) -> str:
        """
        Seal a user for a task; ``since`` is when the user's own call was, in seconds since the epoch.

        Raises:
            UserContextError: JSON does not know a claim.
        """
        value = {"id": user.id, "claims": dict(user.claims)}
        try:
            return seal(self.fernet, "user", task_id, value, since).decode("ascii")
        except (TypeError, ValueError, RecursionError) as error:
            raise UserContextError(_unsealable(user)) from error

    def open(self, sealed: str, task_id: str) -> tuple[User, int]:
        """
        Return whom `seal` was given, and since when.

        Raises:
            UserContextError: It was not sealed with one of the keys, or for another task, or is too old.
        """
        try:
            token = sealed.encode("ascii")
        except (ValueError, AttributeError):
            token = b""
        value, since = unseal(self.fernet, "user", task_id, token)
        age = time.time() - since
        if age > self._ttl:
            raise UserContextError(
                f"the user of task {task_id} was sealed {age:.0f} s ago, and is good for {self._ttl:g} s"
            )
        return User(value["id"], value["claims"]), since


def _unsealable(user: User) -> str:
    for name, claim in user.claims.items():
        try:
            json.dumps({name: claim})
        except (TypeError, ValueError, RecursionError):
            kind = type(claim).__name__
            return f"the user cannot be sealed: JSON does not know claim {name!r}, a {kind}; make it a str"
    return "the user cannot be sealed: JSON does not know the claims; make each a str"


class _Seal:
    """The seal of this process."""

    seal: UserSeal | None = None


_here = _Seal()


def carry_users(keys: Sequence[str | bytes], *, ttl: float = 86400.0) -> None:
    """
    Let the tasks that this process calls take their caller's user along, and open what others sealed.

    Call it where the app is made, in clients and workers alike. The message of every task that is
    called on behalf of a user (`homeloop.as_user`, or within a task that has one) carries that user,
    sealed; a function decorated with `user_aware_task` runs on that user's behalf.

    A user that cannot be sealed (too old, a claim that JSON does not know) makes the call fail with a
    `UserContextError`, and nothing is sent. Where nobody would see that error (a retry, the rest of a chain,
    a callback) the message says why it has no user, and a `user_aware_task` fails with it.

    Args:
        keys: As `UserSeal`: Fernet keys, the newest first.
        ttl: Seconds for which a user is good, from the user's own call on.

    Raises:
        ConfigurationError: ``ttl`` is no finite number above 0. Nothing was changed.
        UserContextError: There is no key, or one is none.

    Thread: the one that sets up the app.
    """
    _here.seal = UserSeal(keys, ttl=ttl)
    _watch_publishing()


def fernet_here() -> MultiFernet:
    """
    Return what seals by the keys of `carry_users`.

    Raises:
        UserContextError: It was not called.
    """
    if _here.seal is None:
        raise UserContextError("sealing needs keys; pass keys=, or call carry_users(keys) first")
    return _here.seal.fernet


@overload
def user_aware_task(fn: Callable[P, T], /) -> Callable[P, T]: ...
@overload
def user_aware_task(
    *, recovery_enabled: bool = False, checkpoint_frequency: float = 0.0, recovery_priority: int = 0
) -> Callable[[Callable[P, T]], Callable[P, T]]: ...
def user_aware_task(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    recovery_enabled: bool = False,
    checkpoint_frequency: float = 0.0,
    recovery_priority: int = 0,
) -> Any:
    """
    Run a task's function on behalf of the user who called the task; decorator, below ``@app.task``.

    The function may be ``async def`` or not. It sees the user by `homeloop.current_user`, and so do
    `get_user_connection` and the tasks that it calls. A task that nobody called on behalf of a user
    has none. A direct or eager call has its caller's.

    With recovery the task survives its worker, as `homeloop.adapters.celery.recovery.recover_tasks` says: the
    function takes a parameter ``recovery_ctx``, which callers do not pass, for its checkpoints.

    Args:
        recovery_enabled: Whether the task is sent again when its worker dies. It must be ``async def``.
        checkpoint_frequency: Percent that a checkpoint must be further than the last one to be written; 0
            writes each.
        recovery_priority: Lost tasks are sent again in the order of this number, the highest first.

    Raises:
        AdapterError: Recovery of a function that is not ``async def``.
        ConfigurationError: ``checkpoint_frequency`` is not from 0 to 100, ``recovery_priority`` not whole, or
            one of them is given without recovery; or what is decorated is no function, or an async generator
            function.

    Calling the task raises:
        UserContextError: There is a user, and it cannot be sealed, or `carry_users` was not called. Nothing
            was sent.

    The task raises:
        UserContextError: The user in the message was tampered with, belongs to another task or is too
            old, or this worker has no keys (`carry_users`). The function was not called.
        ConfigurationError: Recovery was not set up. The function was not called.
    """
    check_number("user_aware_task", "checkpoint_frequency", checkpoint_frequency, most=100)
    check_whole("user_aware_task", "recovery_priority", recovery_priority)
    if not recovery_enabled and (checkpoint_frequency or recovery_priority):
        raise ConfigurationError(
            "user_aware_task: checkpoint_frequency and recovery_priority are of recovery, which is not enabled",
            "say recovery_enabled=True, or leave them out",
        )
    if fn is not None and not callable(fn):
        raise ConfigurationError(
            f"user_aware_task: it decorates {fn!r}", "put it above a function, below @app.task"
        )
    options = Options(checkpoint_frequency, recovery_priority) if recovery_enabled else None
    _watch_publishing()
    if fn is None:
        return lambda function: _aware(function, options)
    return _aware(fn, options)


def _aware(fn: Callable[..., Any], recovery: Options | None) -> Callable[..., Any]:
    check_task_function(fn)
    behind = coroutine_behind(fn)
    if behind is not None:
        return task_function(_aware(behind, recovery))

    @wraps(fn)
    async def aware(*args: Any, **kwargs: Any) -> Any:
        with _users_of_current_task():
            return await fn(*args, **kwargs)

    @wraps(fn)
    def aware_sync(*args: Any, **kwargs: Any) -> Any:
        with _users_of_current_task():
            return fn(*args, **kwargs)

    chosen: Callable[..., Any] = aware if inspect.iscoroutinefunction(fn) else aware_sync
    setattr(chosen, _AWARE, True)
    chosen.__signature__ = inspect.signature(fn)  # type: ignore[attr-defined]  # Celery does not look behind
    return chosen if recovery is None else recovered(chosen, recovery)


@contextmanager
def _users_of_current_task() -> Iterator[None]:
    request: Any = current_task.request if current_task else None
    if request is None or request.called_directly or request.is_eager:
        yield
        return
    sealed = _sealed(request)
    user = None if sealed is None else _open(sealed, request.id)[0]
    with as_user(user):
        yield


class _Refused(BaseException):
    """Carries an error out of a signal's handler: Celery logs every Exception of one, and goes on."""

    def __init__(self, error: UserContextError) -> None:
        super().__init__(error)
        self.error = error


_to_aware: ContextVar[bool | None] = ContextVar("homeloop_to_aware", default=None)
"""Whether the task that is being sent is a `user_aware_task`; None outside of `Celery.send_task`."""


def _watch_publishing() -> None:
    """See to the messages of all apps, once in a process."""
    signals.before_task_publish.connect(_add_user, weak=False, dispatch_uid="homeloop.users")
    untyped: Any = Celery
    send = untyped.send_task
    if getattr(send, _AWARE, False):
        return

    @wraps(send)
    def send_task(app: Any, name: str, *args: Any, **options: Any) -> Any:
        task = options.get("task_type") or app._tasks.get(name)  # app.tasks would finalize the app
        token = _to_aware.set(getattr(getattr(task, "run", None), _AWARE, False))
        try:
            return send(app, name, *args, **options)
        except _Refused as refused:
            raise refused.error from refused.error.__cause__
        finally:
            _to_aware.reset(token)

    setattr(send_task, _AWARE, True)
    # All that is sent passes here, and errors reach who sends; the signal alone has the message's own headers.
    untyped.send_task = send_task


def _add_user(headers: dict[str, Any], **_: Any) -> None:
    """Seal the caller's user, or else that of the task that calls, into the message of a task."""
    if keeps_user.get() or (_here.seal is None and not _to_aware.get()):
        return
    request: Any = current_task.request if current_task else None
    try:
        header = _header(headers["id"], request)
    except UserContextError as error:
        # Raised in a retry it would become a Reject, and in the tracer, where there is no user, a line in a log.
        # Nobody would hear of either.
        is_heard = current_user() is not None and (request is None or request.id != headers["id"])
        if is_heard and _to_aware.get() is not None:
            raise _Refused(error) from None
        why = str(error) if error.__cause__ is None else "the user cannot be sealed"  # the broker sees no claims
        header = _REFUSAL + why
    headers.pop(HEADER, None)  # a retry brings the old one
    if header is not None:
        headers[HEADER] = header


def _header(task_id: str, request: Any) -> str | None:
    """Return whom the message of a task takes along, sealed."""
    user, since = current_user(), int(time.time())
    if request is not None and (sealed := _sealed(request)) is not None:
        of_task, moment = _open(sealed, request.id)
        user = user or of_task  # outside the body: callbacks, the rest of a chain
        if user == of_task:
            since = moment
    if user is None:
        return None
    if _here.seal is None:
        raise UserContextError(
            f"task {task_id} is to run for a user, and this process has no keys; call carry_users(keys) first"
        )
    return _here.seal.seal(user, task_id, since)


def _sealed(request: Any) -> str | None:
    sealed: str | None = (request.headers or {}).get(HEADER)
    return sealed


def _open(sealed: str, task_id: str) -> tuple[User, int]:
    if sealed.startswith(_REFUSAL):
        raise UserContextError(sealed.removeprefix(_REFUSAL))
    if _here.seal is None:
        raise UserContextError(
            f"task {task_id} has a user, and this process no keys; call carry_users(keys) first"
        )
    return _here.seal.open(sealed, task_id)
