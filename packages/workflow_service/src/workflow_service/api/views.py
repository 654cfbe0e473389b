"""What requests and answers look like in JSON."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from workflow_service.domain.document import Document
from workflow_service.domain.run import CancelMode, EventKind, Isolation, Run, RunEvent, RunStatus

_WEEK = 7 * 24 * 3600.0  # seconds


class ExecuteOptions(BaseModel):
    """How to execute a run. Kept with it and shown with it: nothing in here may be secret."""

    model_config = ConfigDict(extra="forbid")

    isolation: Annotated[Isolation, Field(description="How far apart from other runs it works.")] = Isolation.NONE
    timeout: Annotated[
        float | None, Field(gt=0, le=_WEEK, allow_inf_nan=False, description="Seconds one attempt may take.")
    ] = None
    webhook_url: Annotated[
        str | None, Field(min_length=1, max_length=2000, description="Told when the run has ended.")
    ] = None

    def chosen(self) -> dict[str, Any]:
        """Return what was asked for, as JSON; what is left to the service is left out."""
        return self.model_dump(mode="json", exclude_unset=True, exclude_none=True)


class ExecuteRequest(BaseModel):
    """Run a workflow."""

    model_config = ConfigDict(extra="forbid")

    workflow_name: Annotated[str, Field(min_length=1, max_length=200)]
    input_data: dict[str, Any]  # Any: JSON; the workflow checks it
    options: Annotated[ExecuteOptions, Field(default_factory=ExecuteOptions)]


class CancelRequest(BaseModel):
    """End a run before its time."""

    model_config = ConfigDict(extra="forbid")

    mode: CancelMode = CancelMode.INTERRUPT


class AnswerRequest(BaseModel):
    """Answer what a run asks."""

    model_config = ConfigDict(extra="forbid")

    answers: Annotated[
        dict[str, Any], Field(min_length=1, description="By the question's id; what is left out is asked again.")
    ]  # Any: JSON; the question's schema and the graph check it


class QuestionView(BaseModel):
    """What a run asks a person."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    value: Any  # Any: JSON, as the workflow put it


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
    percent: int
    step: str | None
    cancel_mode: CancelMode | None
    can_cancel: bool
    can_resume: bool


class RunDetail(RunView):
    """A run and what it was asked to do."""

    input_data: dict[str, Any]
    options: dict[str, Any]
    questions: list[QuestionView]


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


class DocumentPage(BaseModel):
    """
    Some of a user's documents, newest first; ``next`` is the ``before`` of the following page.

    ``max_bytes`` is the size of the largest file that is taken: a browser that knows it can say so before it sends
    a larger one, whose answer may be lost with the connection.
    """

    documents: list[DocumentView]
    next: UUID | None
    max_bytes: int

    @classmethod
    def of(cls, documents: Sequence[Document], limit: int, max_bytes: int) -> Self:
        """Show at most ``limit`` of ``documents``; one more than that says that another page follows."""
        shown = [DocumentView.of(document) for document in documents[:limit]]
        following = shown[-1].document_id if len(documents) > limit else None
        return cls(documents=shown, next=following, max_bytes=max_bytes)


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
