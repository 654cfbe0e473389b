"""What requests and answers look like in JSON."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from workflow_service.domain.document import Document
from workflow_service.domain.run import EventKind, Run, RunEvent, RunStatus


class ExecuteRequest(BaseModel):
    """Run a workflow."""

    model_config = ConfigDict(extra="forbid")

    workflow_name: Annotated[str, Field(min_length=1, max_length=200)]
    input_data: dict[str, Any]  # Any: JSON; the workflow checks it
    options: Annotated[dict[str, Any], Field(default_factory=dict)]


class Accepted(BaseModel):
    """A run that is committed."""

    run_id: UUID
    status: RunStatus


class RunView(BaseModel):
    """A run, as lists show it."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    workflow_name: str
    status: RunStatus
    attempt: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: dict[str, Any] | None


class RunDetail(RunView):
    """A run and what it was asked to do."""

    input_data: dict[str, Any]
    options: dict[str, Any]


class RunPage(BaseModel):
    """Some of a user's runs, newest first; ``next`` is the ``before`` of the following page."""

    runs: list[RunView]
    next: UUID | None

    @classmethod
    def of(cls, runs: list[Run], limit: int) -> Self:
        """Show at most ``limit`` of ``runs``; one more than that says that another page follows."""
        shown = [RunView.model_validate(run) for run in runs[:limit]]
        return cls(runs=shown, next=shown[-1].id if len(runs) > limit else None)


class EventView(BaseModel):
    """One line of a run's history."""

    model_config = ConfigDict(from_attributes=True)

    seq: int
    kind: EventKind
    data: dict[str, Any]
    at: datetime

    @classmethod
    def of(cls, event: RunEvent) -> Self:
        """Show ``event``."""
        return cls.model_validate(event)


class DocumentView(BaseModel):
    """An uploaded file."""

    document_id: UUID
    filename: str
    media_type: str
    size: int
    sha256: str
    created_at: datetime

    @classmethod
    def of(cls, document: Document) -> Self:
        """Show ``document``."""
        return cls(
            document_id=document.id,
            filename=document.filename,
            media_type=document.media_type,
            size=document.size,
            sha256=document.sha256,
            created_at=document.created_at,
        )


class WorkflowView(BaseModel):
    """A workflow that can be run."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    description: str
    input_schema: dict[str, Any]  # Any: JSON Schema


class WorkflowList(BaseModel):
    """The workflows that can be run, by name."""

    workflows: list[WorkflowView]


class SampleView(BaseModel):
    """A contract that ships with the service."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    media_type: str
    size: int


class SampleList(BaseModel):
    """The contracts that ship with the service, by name."""

    samples: list[SampleView]
