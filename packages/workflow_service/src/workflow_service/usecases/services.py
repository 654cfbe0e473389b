"""What the two processes are given: the ports, joined by bootstrap."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from workflow_service.domain.run_statistics import RunStatistics
from workflow_service.ports import (
    AnswerCache,
    DocumentStore,
    JobQueue,
    Perform,
    RunFeed,
    RunStore,
    ServiceCatalog,
    UsageStore,
    WebhookSender,
    WebhookStore,
    Workflow,
)
from workflow_service.settings import Settings
from workflow_service.usecases.identification import Identification


@dataclass(frozen=True, slots=True)
class ApiServices:
    """What the HTTP side works with."""

    runs: RunStore
    documents: DocumentStore
    usage: UsageStore
    feed: RunFeed
    queue: JobQueue
    workflows: Mapping[str, Workflow]
    identification: Identification
    catalog: ServiceCatalog
    webhooks: WebhookStore
    webhook_sender: WebhookSender
    answers: AnswerCache
    settings: Settings
    ready: Callable[[], Awaitable[Mapping[str, bool]]]
    """Asks each part the service depends on whether it can be used now; never raises for one that cannot."""

    count_runs: Callable[[], Awaitable[RunStatistics]]
    """Counts the runs of all users that have not ended. Raises StoreUnavailableError."""


@dataclass(frozen=True, slots=True)
class WorkerServices:
    """What a worker works with."""

    runs: RunStore
    workflows: Mapping[str, Workflow]
    feed: RunFeed
    """Wakes for runs of this worker that are to end."""
    perform: Perform
