"""The asyncio pool's results, written to Redis several at a time."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

from collections.abc import Sequence
from typing import Any, NamedTuple

from celery.states import SUCCESS
from kombu.utils.encoding import bytes_to_str

from homeloop.adapters.celery.pool._job import Job

_METHODS = ("store_result", "_store_result", "mark_as_done", "set", "_set", "_set_with_state", "get_key_for_task")
"""What of a backend is done here in its place."""

_ORIGINS = ("celery.backends.base", "celery.backends.redis")

_NONE: frozenset[Job] = frozenset()


class _Entry(NamedTuple):
    job: Job
    key: Any
    value: Any


def store(app: Any, jobs: Sequence[Job]) -> frozenset[Job]:
    """
    Store results as Celery's own backend for Redis does: a look whether there is a success already, the value, its
    publication; each for all of them in one round trip. Thread: any, not the loop's.

    Returns:
        The jobs whose results are stored. Celery does it for the others, one by one and with its retries: of
        other backends, of members of chords, those that cannot be encoded, those that are alone.

    Raises:
        Exception: Redis does not answer. Some results may be stored; storing them again does no harm.
    """
    backend = app.tasks[jobs[0].name].backend if jobs else None
    if not _is_known(backend):
        return _NONE
    entries = [entry for job in jobs if (entry := job.context.run(_prepare, app, backend, job)) is not None]
    if len(entries) < 2:
        return _NONE
    _write(backend, entries)
    return frozenset(entry.job for entry in entries)


def _is_known(backend: Any) -> bool:
    kind = type(backend)
    if (kind.__module__, kind.__qualname__) != ("celery.backends.redis", "RedisBackend"):
        return False
    # Somebody who watches or changes what is stored is not passed by.
    return all(
        name not in vars(backend)
        and getattr(getattr(kind, name, None), "__module__", None)
        in ("celery.backends.base", "celery.backends.redis")
        for name in _METHODS
    )


def _prepare(app: Any, backend: Any, job: Job) -> _Entry | None:
    assert job.steps is not None
    assert job.steps.result is not None
    task_id, returned, request, is_wanted = job.steps.result
    if not is_wanted or request.ignore_result or request.chord or app.tasks[job.name].backend is not backend:
        return None
    try:
        result = backend.encode_result(returned, SUCCESS)
        meta = backend._get_result_meta(result=result, state=SUCCESS, traceback=None, request=request)
        meta["task_id"] = bytes_to_str(task_id)
        value = backend.encode(meta)
    except Exception:  # which Celery is to meet itself
        return None
    if len(value) > backend._MAX_STR_VALUE_SIZE:
        return None
    return _Entry(job, backend.get_key_for_task(task_id), value)


def _write(backend: Any, entries: Sequence[_Entry]) -> None:
    before = backend.mget([entry.key for entry in entries])
    with backend.client.pipeline(transaction=False) as pipe:
        for entry, meta in zip(entries, before, strict=True):
            if meta and backend.decode_result(meta)["status"] == SUCCESS:
                continue  # of an earlier run of the task: it stays
            pipe.set(entry.key, entry.value, ex=backend.expires or None)
            pipe.publish(entry.key, entry.value)
        pipe.execute()
