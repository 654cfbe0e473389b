"""Runs: list them, look at one, follow it, take its result; cancel, resume and delete it."""

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, TypeVar
from uuid import UUID

from fastapi import APIRouter, Header, HTTPException, Query, Response
from fastapi.responses import JSONResponse
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from workflow_service.api.authentication import INVALID, IsKnown, User
from workflow_service.api.dependencies import Services
from workflow_service.api.problems import ProblemResponse, problems
from workflow_service.api.views import CancelRequest, EventView, RunDetail, RunPage
from workflow_service.domain.run import Run, RunStatus
from workflow_service.ports import StoreUnavailableError
from workflow_service.usecases.afterlife import delete_run, resume_run
from workflow_service.usecases.following import follow_run, wait_for_end

router = APIRouter(prefix="/runs", tags=["runs"])

HEARTBEAT = 15  # seconds between comments on a silent stream: proxies close connections that say nothing
SEND_TIMEOUT = 30.0  # seconds for one event; a client that reads slower than that is gone
_RETRY_AFTER = "1"  # seconds
_MAX_SEQ = 2**31 - 1
_LONGEST_WAIT = 300.0  # seconds; proxies give up on an answer sooner or later

T = TypeVar("T")

LastEventId = Annotated[
    int | None, Header(alias="Last-Event-ID", ge=0, le=_MAX_SEQ, description="Go on after this event.")
]

_logger = logging.getLogger(__name__)


@router.get("")
async def list_runs(
    user_id: User,
    services: Services,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    before: Annotated[UUID | None, Query(description="A page's ``next``.")] = None,
    status: Annotated[list[RunStatus] | None, Query(description="Only these; may be given several times.")] = None,
    workflow_name: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
) -> RunPage:
    """List the user's runs, newest first."""
    found = await services.runs.list_recent(
        user_id, limit + 1, before, statuses=status or (), workflow_name=workflow_name
    )
    return RunPage.of(list(found), limit)


@router.get("/{run_id}", responses=problems(404))
async def get_run(run_id: UUID, user_id: User, services: Services) -> RunDetail:
    """Return where a run stands."""
    return RunDetail.model_validate(await _find(run_id, user_id, services))


@router.get("/{run_id}/wait", responses=problems(404))
async def wait(
    run_id: UUID,
    user_id: User,
    is_known: IsKnown,
    services: Services,
    timeout: Annotated[float, Query(ge=0, le=_LONGEST_WAIT, allow_inf_nan=False, description="Seconds.")] = 30.0,
) -> RunDetail:
    """Return a run when it has ended, or as it stands when the time is over."""
    run = await wait_for_end(user_id, run_id, timeout, runs=services.runs, feed=services.feed)
    if not await is_known():
        detail = "The key was revoked, or the token has expired, while you waited."
        raise HTTPException(401, detail, headers={"WWW-Authenticate": INVALID})
    return RunDetail.model_validate(_found(run, run_id))


@router.post("/{run_id}/cancel", status_code=202, responses=problems(400, 404, 409, 413))
async def cancel(
    run_id: UUID, user_id: User, services: Services, request: CancelRequest | None = None
) -> RunDetail:
    """Tell a run to end; a harder mode may follow a softer one."""
    mode = (request or CancelRequest()).mode
    run = await services.runs.request_cancel(user_id, run_id, mode)
    return RunDetail.model_validate(_found(run, run_id))


@router.post("/{run_id}/resume", status_code=202, responses=problems(404, 409))
async def resume(run_id: UUID, user_id: User, services: Services) -> RunDetail:
    """Let a run that failed, was cancelled or is dead go on after its last whole step."""
    run = await resume_run(user_id, run_id, runs=services.runs, queue=services.queue)
    return RunDetail.model_validate(_found(run, run_id))


@router.delete("/{run_id}", status_code=204, responses=problems(404, 409))
async def delete(run_id: UUID, user_id: User, services: Services) -> None:
    """Remove a run that has ended, with its events, its result and what is kept for resuming it."""
    if not await delete_run(user_id, run_id, runs=services.runs, workflows=services.workflows):
        _found(None, run_id)


@router.get(
    "/{run_id}/events",
    response_class=EventSourceResponse,
    responses={204: {"description": "The run has ended and nothing follows."}, **problems(404)},
)
async def events(
    run_id: UUID, user_id: User, is_known: IsKnown, services: Services, last_event_id: LastEventId = None
) -> Response:
    """Stream what happens to a run, from its first event or after ``Last-Event-ID``, to its final one.

    Ends before when the key is revoked or the token expires; who connects again gets 401.
    """
    run = await _find(run_id, user_id, services)
    after = last_event_id or 0
    if run.status.is_final and after and not await services.runs.events(user_id, run_id, after):
        return Response(status_code=204)  # tells an EventSource not to connect again
    return _EventStream(
        _stream(run_id, user_id, is_known, services, after), ping=HEARTBEAT, send_timeout=SEND_TIMEOUT, sep="\n"
    )


@router.get("/{run_id}/result", response_class=JSONResponse, responses=problems(404, 409))
async def result(run_id: UUID, user_id: User, services: Services) -> Response:
    """Return what the workflow returned; for a failed run, the problem."""
    text = await services.runs.result(user_id, run_id)
    if text is not None:
        return Response(text, media_type="application/json")
    run = await _find(run_id, user_id, services)
    if run.status is RunStatus.SUCCEEDED:  # between the two looks; it may have been deleted since
        text = _found(await services.runs.result(user_id, run_id), run_id)
        return Response(text, media_type="application/json")
    if run.status.is_final:
        error = run.error or {}
        detail = str(error.get("message", ""))
        title = "The run failed" if run.status is RunStatus.FAILED else f"The run is {run.status}"
        return ProblemResponse(422, title, detail, kind=f"run-{run.status}", error=run.error)
    return ProblemResponse(
        409,
        "The run is not finished",
        f"The run is {run.status}; follow its events, or ask again later.",
        kind="run-not-finished",
        headers={"Retry-After": _RETRY_AFTER},
        run_status=run.status,
    )


class _EventStream(EventSourceResponse):
    """A stream whose body ends whole, also when the server shuts down in the middle of it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)
        if self.active:  # cancelled by the shutdown: neither the events nor the client have ended
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _find(run_id: UUID, user_id: str, services: Services) -> Run:
    return _found(await services.runs.get(user_id, run_id), run_id)


def _found(what: T | None, run_id: UUID) -> T:
    if what is None:
        raise HTTPException(404, f"There is no run {run_id}.")
    return what


async def _stream(
    run_id: UUID, user_id: str, is_known: IsKnown, services: Services, after: int
) -> AsyncIterator[ServerSentEvent]:
    followed = follow_run(user_id, run_id, runs=services.runs, feed=services.feed, is_known=is_known, after=after)
    async with aclosing(followed) as run_events:
        try:
            async for event in run_events:
                data = EventView.of(event).model_dump_json()
                yield ServerSentEvent(data=data, event=event.kind, id=str(event.seq), sep="\n")
        except StoreUnavailableError as error:
            # The stream ends without a final event, so the client connects again, with its Last-Event-ID.
            _logger.warning("run %s: a stream breaks off: %s", run_id, error)
