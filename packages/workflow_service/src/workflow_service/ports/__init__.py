"""What the use cases need of the world, as shapes. Gateways and workflows fit them; bootstrap joins them."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Any, Protocol
from uuid import UUID

from workflow_service.domain.document import Document, DocumentText
from workflow_service.domain.external import ExternalServiceResponse, ServiceDescription
from workflow_service.domain.language_model import ModelAnswer, ModelUsage, UsageReport
from workflow_service.domain.run import (
    CancelMode,
    Claim,
    JsonObject,
    NewRun,
    Progress,
    Question,
    Run,
    RunEvent,
    RunStatus,
    Standing,
)
from workflow_service.domain.webhook import Delivery, DeliveryStatus, DueDelivery, Outcome
from workflow_service.ports.errors import (
    ClaimLostError,
    DatabaseRightsError,
    DrainedError,
    EmptyFileError,
    IdempotencyConflictError,
    InvalidInputError,
    InvalidSettingError,
    ModelUnavailableError,
    ProcessLostError,
    QueueUnavailableError,
    RunStateError,
    RunTimeoutError,
    SchemaTooNewError,
    ServiceError,
    StoreUnavailableError,
    TooLargeError,
    UnreadableDocumentError,
    UnsupportedMediaTypeError,
    WaitingError,
    WorkflowError,
)

__all__ = (
    "AnswerCache",
    "ApiKeyStore",
    "ClaimLostError",
    "DatabaseRightsError",
    "DocumentParser",
    "DocumentStore",
    "Drain",
    "DrainedError",
    "EmptyFileError",
    "IdempotencyConflictError",
    "InvalidInputError",
    "InvalidSettingError",
    "JobQueue",
    "KeptAnswer",
    "LanguageModel",
    "ModelUnavailableError",
    "Perform",
    "Performance",
    "ProcessLostError",
    "QueueUnavailableError",
    "Report",
    "RunContext",
    "RunFeed",
    "RunStateError",
    "RunStore",
    "RunTimeoutError",
    "SchemaTooNewError",
    "ServiceCaller",
    "ServiceCatalog",
    "ServiceError",
    "StoreUnavailableError",
    "TokenVerifier",
    "TooLargeError",
    "UnreadableDocumentError",
    "UnsupportedMediaTypeError",
    "UsageStore",
    "WaitingError",
    "WebhookSender",
    "WebhookStore",
    "Workflow",
    "WorkflowError",
)

Report = Callable[[str, int, str], Awaitable[None]]
"""``await report(step, percent, description)``: returns when the step is persisted; callable from any loop."""


class Drain:
    """The request to end at the next step boundary; a workflow that sees or hears of it raises DrainedError there.

    Thread: any, for every method.
    """

    def __init__(self) -> None:
        self._is_requested = False
        self._listeners: list[Callable[[], object]] = []
        self._lock = Lock()

    @property
    def is_requested(self) -> bool:
        """Whether the run is to end at the next step boundary."""
        return self._is_requested

    def on_request(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` when the run is to end, on the thread that asks; at once if it is to end already."""
        with self._lock:
            if not self._is_requested:
                self._listeners.append(listener)
                return
        listener()

    def request(self) -> None:
        """Ask the workflow to end. Idempotent."""
        with self._lock:
            self._is_requested = True
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a workflow is told of the run it works for.

    ``attempt`` is the number of the claim that it works under: what it keeps is kept as long as that claim holds.
    None for a workflow that is run without the service's queue. ``answers``: all that were ever given by a person,
    by the question's id.
    """

    run_id: UUID
    user_id: str
    input_data: JsonObject
    report: Report
    drain: Drain = field(default_factory=Drain)
    attempt: int | None = None
    answers: JsonObject = field(default_factory=dict)


class RunStore(Protocol):
    """Runs and their events. Every method is one transaction; the database's clock is the only clock."""

    async def create(self, new: NewRun) -> tuple[Run, bool]:
        """Commit a queued run; with a key seen before, return that run and False instead.

        Raises:
            IdempotencyConflictError: The key was used for a different request. Nothing was written.
        """
        ...

    async def get(self, user_id: str, run_id: UUID) -> Run | None:
        """Return the user's run; None if there is none or it is another user's."""
        ...

    async def result(self, user_id: str, run_id: UUID) -> bytes | None:
        """Return what the user's run returned, as JSON text in UTF-8; None if there is no such result."""
        ...

    async def list_recent(
        self,
        user_id: str,
        limit: int,
        before: UUID | None = None,
        *,
        statuses: Collection[RunStatus] = (),
        workflow_name: str | None = None,
    ) -> Sequence[Run]:
        """Return the user's runs, newest first, from the one after ``before`` (a run id: the cursor).

        Only those in one of ``statuses``, if any are given, and of the workflow, if one is named.

        Raises:
            InvalidInputError: The user has no run ``before``: it may have been deleted.
        """
        ...

    async def events(self, user_id: str, run_id: UUID, after: int = 0) -> Sequence[RunEvent]:
        """Return the events of the user's run with ``seq > after``, in order."""
        ...

    async def claim(self, run_id: UUID, worker_id: str, lease: float) -> Claim | None:
        """Take a queued run, or a running one whose lease is over, for ``lease`` seconds.

        Returns None when there is nothing to do: finished, unknown, pausing before another attempt, or leased to
        a living worker.
        """
        ...

    async def renew(self, claim: Claim, lease: float) -> Standing:
        """Extend the lease, and say whether the run is to end; a claim that is not held must be let go."""
        ...

    async def record_progress(self, claim: Claim, progress: Progress) -> bool:
        """Persist a step once per run; False if that step stands already (a resumed run said it again).

        Raises:
            ClaimLostError: Another worker has claimed the run since. Nothing was written.
        """
        ...

    async def succeed(self, claim: Claim, result: JsonObject) -> None:
        """Store the result and end the run. Raises ClaimLostError as record_progress does."""
        ...

    async def fail(self, claim: Claim, error: JsonObject) -> None:
        """Store the error and end the run. Raises ClaimLostError as record_progress does."""
        ...

    async def release(self, claim: Claim) -> None:
        """Give a run back to the queue (a worker that is told to stop); one that is being cancelled ends.

        Raises ClaimLostError.
        """
        ...

    async def cancel(self, claim: Claim) -> None:
        """End a run as cancelled, in the mode that was asked for. Raises ClaimLostError."""
        ...

    async def wait_for_answers(self, claim: Claim, questions: Sequence[Question]) -> None:
        """Let a run go until a person has answered; one that is being cancelled ends. Raises ClaimLostError.

        Raises:
            ValueError, TypeError: A question is no JSON. Nothing was written; the run is still held.
        """
        ...

    async def retry_later(self, claim: Claim, error: JsonObject) -> bool:
        """Give a run back for another attempt after a pause that grows with each; False if it is dead now.

        Counts as a loss: after too many in a row without a new step the run is dead, with ``error``.
        Raises ClaimLostError.
        """
        ...

    async def request_cancel(self, user_id: str, run_id: UUID, mode: CancelMode) -> Run | None:
        """Tell a run to end, and return it; None if the user has no such run.

        A queued or waiting run ends at once, and any run does by KILL: whoever holds a claim on it holds it no
        longer. A run that is told again ends in the harder of the two modes.

        Raises:
            RunStateError: The run has ended. Nothing was changed.
        """
        ...

    async def resume(self, user_id: str, run_id: UUID) -> Run | None:
        """Queue a run that ended without success, to go on after its last whole step; None as request_cancel.

        Raises:
            RunStateError: The run has not ended, has succeeded, or nothing is kept of it. Nothing was changed.
        """
        ...

    async def answer(self, user_id: str, run_id: UUID, answers: JsonObject) -> Run | None:
        """Queue a waiting run, to go on with the answers to its questions, by their ids; None as request_cancel.

        Raises:
            RunStateError: The run does not wait. Nothing was changed.
            InvalidInputError: No answer, or one to a question that the run does not ask. Nothing was changed.
        """
        ...

    async def delete(self, user_id: str, run_id: UUID) -> bool:
        """Remove an ended run and its events; False if the user has no such run. Forget it first.

        Raises:
            RunStateError: The run has not ended. Nothing was changed.
        """
        ...

    async def take_forgettable(self, limit: int) -> Sequence[Run]:
        """Return ended runs whose checkpoints are to be removed; they can no longer be resumed.

        The same run is returned again after a minute unless mark_forgotten names it: its taker may have died.
        """
        ...

    async def give_up_keeping(self, user_id: str, run_id: UUID) -> Run | None:
        """Have an ended run's checkpoints removed: it cannot be resumed from now on. None as request_cancel.

        Raises:
            RunStateError: The run has not ended. Nothing was changed.
        """
        ...

    async def mark_forgotten(self, run_ids: Sequence[UUID]) -> None:
        """Note that nothing is kept of these runs any more."""
        ...

    async def requeue_lost(self, limit: int) -> Sequence[UUID]:
        """Put runs whose lease is over back to queued, and return them with those queued too long ago.

        Runs another process is looking at are skipped, so any number of processes may call this.
        A run that was lost too often is dead instead: it may be what kills its workers. One that is being
        cancelled ends.
        """
        ...

    async def mark_unsent(self, run_ids: Sequence[UUID]) -> None:
        """Note that the broker did not take these queued runs: the next requeue_lost returns them again."""
        ...


class Performance(Protocol):
    """One attempt at a run's workflow, in the tier that the run's options name."""

    async def run(self) -> JsonObject:
        """Run the workflow; return and raise what it does.

        Raises:
            RunTimeoutError: It took longer than the run's options allow, and was cancelled.
            ProcessLostError: The process of its own that it worked in ended under it.

        Cancellation: cancels the workflow, waits for its clean-up, then is raised.
        """
        ...

    def drain(self) -> None:
        """Ask the workflow to end at its next step boundary. Idempotent."""
        ...

    def kill(self) -> None:
        """End the process of its own that the workflow works in, if it has one: `run` then raises."""
        ...


Perform = Callable[[Run, Report], Performance]
"""Prepares an attempt at a run; ``report`` is called on the loop of whoever awaits its `Performance.run`."""


class RunFeed(Protocol):
    """Wake-ups for those who follow a run. A wake-up says «look again», never what to see."""

    def watch(self, run_id: UUID) -> AbstractAsyncContextManager[Callable[[float], Awaitable[bool]]]:
        """Yield ``wait(timeout)``: True after a change since the last wait, False after ``timeout`` seconds."""
        ...


class JobQueue(Protocol):
    """The broker, as a wake-up: losing a message costs time, never a run."""

    async def enqueue(self, run_id: UUID) -> None:
        """Tell the workers that a run is queued.

        Raises:
            QueueUnavailableError: The broker did not take it. The run stays queued; the reaper sends it again.
        """
        ...


class DocumentStore(Protocol):
    """Uploaded files."""

    async def save(self, user_id: str, filename: str, media_type: str, content: bytes) -> Document:
        """Keep a file and return its record."""
        ...

    async def get(self, user_id: str, document_id: UUID) -> Document | None:
        """Return the record of the user's document; None if there is none or it is another user's."""
        ...

    async def which(self, user_id: str, document_ids: Collection[UUID]) -> Collection[UUID]:
        """Return those of the ids that are documents of the user."""
        ...

    async def list_recent(self, user_id: str, limit: int, before: UUID | None = None) -> Sequence[Document]:
        """Return the user's documents, newest first, from the one after ``before`` (a document id: the cursor)."""
        ...

    async def content(self, user_id: str, document_id: UUID) -> bytes | None:
        """Return the file's bytes; None as get does."""
        ...


class DocumentParser(Protocol):
    """Turns a file into text."""

    async def parse(self, content: bytes, media_type: str) -> DocumentText:
        """Return the text and its pages.

        Raises:
            UnreadableDocumentError: The file is damaged, encrypted, empty of text, too large, or took too long.

        Cancellation: ends the parsing process.
        """
        ...


class Workflow(Protocol):
    """A named piece of work on JSON, resumable by run id."""

    @property
    def name(self) -> str:
        """The name users call it by."""
        ...

    @property
    def description(self) -> str:
        """One sentence for the list of workflows."""
        ...

    @property
    def input_schema(self) -> JsonObject:
        """The JSON Schema of the input; a form is made from it. `check` may ask for more than it can say."""
        ...

    def check(self, input_data: JsonObject) -> None:
        """Raise InvalidInputError if the workflow could not run on this input."""
        ...

    async def run(self, context: RunContext) -> JsonObject:
        """Run, or go on after the last checkpoint of this run id, and return the result.

        Raises:
            WorkflowError: The input cannot be worked on; trying again would not help.
            StoreUnavailableError, ModelUnavailableError: What it needs did not answer; another attempt goes on.
            ClaimLostError: The attempt holds the run no longer: what it was about to keep was not kept.
            DrainedError: It was asked to end at a step boundary, and can go on from there.
            WaitingError: A person has to answer first; with the answers it goes on from there.

        Cancellation: the run was interrupted, or its worker stops; it can go on after the last whole step.
        """
        ...

    async def forget(self, run_id: UUID) -> None:
        """Remove what is kept for going on with this run; it has ended, and nobody runs it again."""
        ...


class ServiceCaller(Protocol):
    """An external service with its connections open, for one context on one loop."""

    async def call(
        self, operation: str, params: JsonObject, user_id: str, cache_ttl: float | None = None
    ) -> ExternalServiceResponse:
        """Ask the service; with ``cache_ttl`` (seconds), an answer that young is taken from the user's cache.

        What the provider refuses, or fails at after the retries, is an answer with ``success=False``.

        Raises:
            InvalidInputError: No such operation, or parameters that it does not take.
        """
        ...


class ServiceCatalog(Protocol):
    """The external services that are configured."""

    def describe(self) -> Collection[ServiceDescription]:
        """Return what each service offers, by name."""
        ...

    def open(self, name: str) -> AbstractAsyncContextManager[ServiceCaller]:
        """Open a service for the body, on the running loop; its connections are closed however the body ends.

        Raises:
            InvalidInputError: There is no such service, or it is not configured; the message says what to set.
        """
        ...


class ApiKeyStore(Protocol):
    """Keys that were made for users."""

    async def user_of(self, prefix: str, secret: str) -> str | None:
        """Return whose key this is; None if there is none, or it is revoked, expired, or of another secret.

        How long it takes tells nothing of the secret that is kept.
        """
        ...


class TokenVerifier(Protocol):
    """Tokens that somebody else issues."""

    def user_of(self, token: str) -> str | None:
        """Return the user of a valid token; None for any other text."""
        ...


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer of an external service that was kept; ``age`` is in seconds, by the store's clock."""

    data: Any  # Any: JSON
    age: float


class AnswerCache(Protocol):
    """Answers of external services, kept for one user each."""

    async def find(self, user_id: str, key: bytes, max_age: float) -> KeptAnswer | None:
        """Return the user's answer under ``key`` if it is at most ``max_age`` seconds old."""
        ...

    async def keep(self, user_id: str, key: bytes, service: str, data: Any, ttl: float) -> None:  # Any: JSON
        """Keep an answer for ``ttl`` seconds at least; the user's oldest answers make place for it.

        Raises:
            TypeError, ValueError: ``data`` is no JSON. Nothing was kept.
        """
        ...

    async def prune(self) -> int:
        """Remove answers that nobody may use any more, of all users; return how many those were."""
        ...


class WebhookStore(Protocol):
    """Deliveries of webhooks. A run that asks for one gets its delivery in the transaction of its ending."""

    async def take_due(
        self, limit: int, per_user: int, under_way: Mapping[str, int], lease: float
    ) -> Sequence[DueDelivery]:
        """Return deliveries to be sent now; each is due again after ``lease`` seconds unless its outcome is told.

        Args:
            limit: So many at most.
            per_user: Of one user so many at most, those under way included.
            under_way: Deliveries by user that are being sent already.
            lease: Seconds.
        """
        ...

    async def record(self, delivery: DueDelivery, outcome: Outcome, pause: float | None) -> None:
        """Write down an attempt's outcome; after ``pause`` seconds it is sent again, None is the end of it."""
        ...

    async def list_recent(
        self,
        user_id: str,
        limit: int,
        before: UUID | None = None,
        run_id: UUID | None = None,
        status: DeliveryStatus | None = None,
    ) -> Sequence[Delivery]:
        """Return the user's deliveries, newest first, from the one after ``before`` (an id: the cursor)."""
        ...

    async def send_again(self, user_id: str, delivery_id: UUID) -> Delivery | None:
        """Make the user's delivery due now; None if there is none. One that has ended begins anew."""
        ...


class WebhookSender(Protocol):
    """Sends webhooks, signed."""

    def check(self, url: str) -> None:
        """Refuse an address that nothing could be sent to.

        Raises:
            InvalidInputError: The message says what is wrong.
        """
        ...

    def secrets_of(self, user_id: str) -> Sequence[str]:
        """Return what the user's receivers verify signatures with, the current one first."""
        ...

    async def send(self, delivery: DueDelivery) -> Outcome:
        """Send once, and say how it went; never raises for what the receiver does."""
        ...


class LanguageModel(Protocol):
    """A language model, chosen by configuration."""

    @property
    def name(self) -> str:
        """The model as it was configured: ``provider:model``."""
        ...

    async def complete(
        self,
        prompt: str,
        *,
        user_id: str,
        run_id: UUID | None = None,
        system: str | None = None,
        schema: JsonObject | None = None,
    ) -> ModelAnswer:
        """Return the model's answer; with ``schema`` (JSON Schema of an object) one that fits it, as ``data``.

        What the calls take is kept for the user and, if it is given, the run.

        Raises:
            WorkflowError: The model refused, or gave no answer that fits the schema after the retries.
            ModelUnavailableError: The provider did not answer after the retries; another attempt may.
        """
        ...


class UsageStore(Protocol):
    """What users' calls to language models took."""

    async def record(self, user_id: str, run_id: UUID | None, usage: ModelUsage) -> None:
        """Keep what one call took. Raises StoreUnavailableError."""
        ...

    async def report(
        self,
        user_id: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        run_id: UUID | None = None,
    ) -> UsageReport:
        """Return what the user's calls took, those of one run or of a time (``since`` <= t < ``until``) only."""
        ...
