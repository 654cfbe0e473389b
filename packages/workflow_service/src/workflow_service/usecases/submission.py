"""Submit a run: check it, commit it, then tell a worker."""

import logging
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from workflow_service.domain.named_documents import named_documents
from workflow_service.domain.run import NewRun, Run
from workflow_service.ports import (
    DocumentStore,
    InvalidInputError,
    JobQueue,
    QueueUnavailableError,
    RunStore,
    WebhookSender,
    Workflow,
)

_MAX_DEPTH = 64  # levels of nesting; no workflow needs more, and parsers recurse

_logger = logging.getLogger(__name__)


async def submit_run(
    new: NewRun,
    *,
    runs: RunStore,
    queue: JobQueue,
    workflows: Mapping[str, Workflow],
    documents: DocumentStore,
    webhooks: WebhookSender,
) -> tuple[Run, bool]:
    """Commit a run and enqueue it; with an idempotency key seen before, return that run and False.

    The run counts from its commit on: a broker that is away delays it until the reaper sends it again.

    Raises:
        InvalidInputError: No such workflow, it cannot take this input, the user has no such document, or the
            webhook's address cannot be. Nothing was written.
        IdempotencyConflictError: The key was used for a different request. Nothing was written.

    Cancellation: the run may or may not be committed; with an idempotency key the caller can find out.
    """
    workflow = workflows.get(new.workflow_name)
    if workflow is None:
        known = ", ".join(sorted(workflows)) or "none"
        fault = f"names no workflow: {new.workflow_name!r}; known: {known}"
        raise InvalidInputError(f"workflow_name {fault}", [("workflow_name", fault)])
    for name, value in (("input_data", new.input_data), ("options", new.options)):
        refuse_what_cannot_be_stored(name, value)
    workflow.check(new.input_data)
    if (webhook_url := new.options.get("webhook_url")) is not None:
        webhooks.check(webhook_url)
    await _refuse_documents_not_there(new, workflow, documents)
    run, is_new = await runs.create(new)
    if is_new:
        await enqueue(run, queue)
    return run, is_new


async def enqueue(run: Run, queue: JobQueue) -> None:
    """Tell the broker of a committed run; one that is away is told later, by the reaper."""
    try:
        await queue.enqueue(run.id)
    except QueueUnavailableError as error:
        _logger.warning("run %s is committed but not enqueued; the reaper will do it: %s", run.id, error)


async def _refuse_documents_not_there(new: NewRun, workflow: Workflow, documents: DocumentStore) -> None:
    named = list(named_documents(workflow.input_schema, new.input_data, "input_data"))
    if not named:
        return
    # Asked as the user: a document of somebody else answers as one that there is not.
    there = await documents.which(new.user_id, {document_id for _, document_id in named})
    faults = [
        (place, f"names no document of yours: {document_id}; upload it and send its document_id")
        for place, document_id in named
        if document_id not in there
    ]
    if faults:
        raise InvalidInputError("; ".join(f"{place} {fault}" for place, fault in faults), faults)


def refuse_what_cannot_be_stored(name: str, value: Any) -> None:  # Any: parsed JSON
    """Raise InvalidInputError for a value, called ``name``, that the database cannot hold."""
    for place, fault in _faults(name, value, 0):
        is_path = place.startswith(name)  # not "a key in input_data"
        raise InvalidInputError(f"{place} {fault}", [(place, fault)] if is_path else ())


def _faults(place: str, value: Any, depth: int) -> Iterator[tuple[str, str]]:
    """Yield what in ``value`` the database cannot hold: JSON allows it, PostgreSQL does not."""
    if depth > _MAX_DEPTH:  # the place of the deepest part would be a line of brackets
        yield re.split(r"[.\[]", place, maxsplit=1)[0], f"is nested deeper than {_MAX_DEPTH} levels"
    elif isinstance(value, str):
        yield from _text_faults(place, value)
    elif isinstance(value, float) and not math.isfinite(value):
        yield place, f"is {value}, which is no JSON number"
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _text_faults(f"a key in {place}", key)
            yield from _faults(f"{place}.{key}", item, depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _faults(f"{place}[{index}]", item, depth + 1)


def _text_faults(place: str, text: str) -> Iterator[tuple[str, str]]:
    if "\0" in text:
        yield place, "holds a NUL character, which cannot be stored"
    if any("\ud800" <= character <= "\udfff" for character in text):
        yield place, "holds half of a surrogate pair, which is no Unicode text"
