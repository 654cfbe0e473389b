"""Runs: list them, look at one, follow it, take its result."""

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, HTTPException, Query, Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from workflow_service.api.authentication import User
from workflow_service.api.dependencies import Services
from workflow_service.api.problems import ProblemResponse
from workflow_service.api.views import EventView, RunDetail, RunPage
from workflow_service.domain.run import Run, RunStatus
from workflow_service.ports import StoreUnavailableError
from workflow_service.usecases.following import follow_run

router = APIRouter(prefix="/runs", tags=["runs"])

HEARTBEAT = 15  # seconds between comments on a silent stream: proxies close connections that say nothing
SEND_TIMEOUT = 30.0  # seconds for one event; a client that reads slower than that is gone
_RETRY_AFTER = "1"  # seconds
_MAX_SEQ = 2**31 - 1

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
) -> RunPage:
    """List the user's runs, newest first."""
    return RunPage.of(list(await services.runs.list_recent(user_id, limit + 1, before)), limit)


@router.get("/{run_id}")
async def get_run(run_id: UUID, user_id: User, services: Services) -> RunDetail:
    """Return where a run stands."""
    return RunDetail.model_validate(await _find(run_id, user_id, services))


@router.get("/{run_id}/events", response_class=EventSourceResponse)
async def events(run_id: UUID, user_id: User, services: Services, last_event_id: LastEventId = None) -> Response:
    """Stream what happens to a run, from its first event or after ``Last-Event-ID``, to its final one."""
    run = await _find(run_id, user_id, services)
    after = last_event_id or 0
    if run.status.is_final and after and not await services.runs.events(user_id, run_id, after):
        return Response(status_code=204)  # tells an EventSource not to connect again
    return _EventStream(
        _stream(run_id, user_id, services, after), ping=HEARTBEAT, send_timeout=SEND_TIMEOUT, sep="\n"
    )


@router.get("/{run_id}/result")
async def result(run_id: UUID, user_id: User, services: Services) -> Response:
    """Return what the workflow returned; for a failed run, the problem."""
    run = await _find(run_id, user_id, services)
    if run.status is RunStatus.SUCCEEDED:
        text = await services.runs.result(user_id, run_id)
        return Response(text, media_type="application/json")
    if run.status.is_final:
        error = run.error or {}
        detail = str(error.get("message", ""))
        return ProblemResponse(422, f"The run {run.status}", detail, kind=f"run-{run.status}", error=run.error)
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
    run = await services.runs.get(user_id, run_id)
    if run is None:
        raise HTTPException(404, f"There is no run {run_id}.")
    return run


async def _stream(run_id: UUID, user_id: str, services: Services, after: int) -> AsyncIterator[ServerSentEvent]:
    followed = follow_run(user_id, run_id, runs=services.runs, feed=services.feed, after=after)
    async with aclosing(followed) as run_events:
        try:
            async for event in run_events:
                data = EventView.of(event).model_dump_json()
                yield ServerSentEvent(data=data, event=event.kind, id=str(event.seq), sep="\n")
        except StoreUnavailableError as error:
            # The stream ends without a final event, so the client connects again, with its Last-Event-ID.
            _logger.warning("run %s: a stream breaks off: %s", run_id, error)
