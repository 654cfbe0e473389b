"""Errors as RFC 9457 problem details."""

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.routing import Match

from workflow_service.api.paths import METHODS
from workflow_service.ports import (
    EmptyFileError,
    IdempotencyConflictError,
    InvalidInputError,
    RunStateError,
    ServiceError,
    StoreUnavailableError,
    TooLargeError,
    UnreadableDocumentError,
    UnsupportedMediaTypeError,
    WorkflowError,
)

_STATUS_AND_KIND: Mapping[type[ServiceError], tuple[int, str, str]] = {
    InvalidInputError: (422, "invalid-input", "The workflow cannot run on this input"),
    EmptyFileError: (422, "invalid-input", "The file is empty"),
    WorkflowError: (422, "invalid-input", "The workflow cannot run on this input"),
    UnreadableDocumentError: (422, "unreadable-document", "The file cannot be read"),
    IdempotencyConflictError: (409, "idempotency-key-reused", "The idempotency key belongs to another request"),
    TooLargeError: (413, "too-large", "The file is too large"),
    UnsupportedMediaTypeError: (415, "unsupported-format", "The file's format cannot be read"),
}
_RETRY_AFTER = "2"  # seconds

_logger = logging.getLogger(__name__)


class ProblemResponse(JSONResponse):
    """A problem document: ``type``, ``title``, ``status``, ``detail`` and what belongs to the type."""

    media_type = "application/problem+json"

    def __init__(
        self,
        status: int,
        title: str,
        detail: str = "",
        *,
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
        **members: Any,  # Any: extension members are JSON
    ) -> None:
        """Describe a problem; ``kind`` names its type, None is a plain HTTP status."""
        document = {
            "type": "about:blank" if kind is None else f"urn:problem-type:workflow-service:{kind}",
            "title": title,
            "status": status,
            "detail": detail,
        }
        super().__init__(document | members, status_code=status, headers=headers)


class Problem(BaseModel):
    """What went wrong (RFC 9457); more members belong to some types."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str


_Responses = dict[int | str, dict[str, Any]]  # Any: as FastAPI has it
_SCHEMA = "#/components/schemas/Problem"
_EVERYWHERE = (401, 422, 500, 503)


def problems(*statuses: int) -> _Responses:
    """Return the ``responses`` of a route under ``/api``: these statuses, and those that each can answer."""
    content = {ProblemResponse.media_type: {"schema": {"$ref": _SCHEMA}}}
    return {
        status: {"description": _TITLES.get(status, "Error"), "content": content}
        for status in sorted({*statuses, *_EVERYWHERE})
    }


def add_problem_handlers(app: FastAPI) -> None:
    """Make ``app`` answer every expected error as a problem document; the unexpected ones are in ``failures``.

    Its OpenAPI document gets the schema that the answers of `problems` name.
    """
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        document = describe()
        document.setdefault("components", {}).setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _validation_problem)
    app.add_exception_handler(StoreUnavailableError, _unavailable_problem)
    app.add_exception_handler(RunStateError, _run_state_problem)
    for error in _STATUS_AND_KIND:
        app.add_exception_handler(error, _service_problem)


async def _http_problem(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)
    headers = error.headers
    if error.status_code == 405:
        headers = {**(headers or {}), "Allow": ", ".join(_methods_of(request))}
    title = _TITLES.get(error.status_code, "Error")
    detail = error.detail if error.detail != title else ""
    kind = _KINDS.get(error.status_code)
    return ProblemResponse(error.status_code, title, detail, kind=kind, headers=headers)


def _methods_of(request: Request) -> list[str]:
    """Return the methods of all routes that stand at an address: Starlette names those of the first one."""
    # Tried one by one: a router that was included does not tell which methods its routes have.
    return [
        method
        for method in METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.router.routes
        )
    ]


async def _validation_problem(_request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    # Where and what, but not the value: it may be a secret, and the sender has it.
    faults = [
        {"field": ".".join(str(part) for part in fault["loc"]), "message": fault["msg"]}
        for fault in error.errors()
    ]
    detail = "; ".join(f"{fault['field']}: {fault['message']}" for fault in faults[:3])
    return ProblemResponse(422, "The request is not valid", detail, kind="invalid-request", errors=faults)


async def _service_problem(_request: Request, error: Exception) -> ProblemResponse:
    status, kind, title = next(
        found for cls in type(error).__mro__ if (found := _STATUS_AND_KIND.get(cls)) is not None
    )
    members: dict[str, Any] = {}  # Any: JSON
    if isinstance(error, InvalidInputError) and error.faults:
        members["errors"] = [{"field": place, "message": message} for place, message in error.faults]
    return ProblemResponse(status, title, str(error), kind=kind, **members)


async def _run_state_problem(_request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RunStateError)
    title = "The run's status does not allow it"
    return ProblemResponse(409, title, str(error), kind="run-status", run_status=error.status)


async def _unavailable_problem(_request: Request, error: Exception) -> ProblemResponse:
    return unavailable(error)


def unavailable(error: Exception) -> ProblemResponse:
    """Return the answer for a database that is away, and log why."""
    # The reason names hosts and ports: for the log, not for users.
    _logger.error("%s", error)
    return ProblemResponse(
        503,
        "The service is not ready",
        "The database did not answer. Try again in a moment.",
        kind="unavailable",
        headers={"Retry-After": _RETRY_AFTER},
    )


_TITLES: Mapping[int, str] = {
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_KINDS: Mapping[int, str] = {401: "unauthorized", 408: "too-slow", 413: "too-large"}
"""413, the body as a whole: as of a file."""
