"""What webhooks look like in JSON."""

from datetime import datetime
from typing import Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from workflow_service.domain.webhook import Delivery, DeliveryStatus


class DeliveryView(BaseModel):
    """A webhook's delivery; ``id`` is what the receiver got as ``webhook-id``."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    run_id: UUID
    event: str
    url: str
    status: DeliveryStatus
    attempts: int
    created_at: datetime
    next_attempt_at: datetime | None
    finished_at: datetime | None
    last_status: int | None
    last_error: str | None


class DeliveryPage(BaseModel):
    """Some of a user's deliveries, newest first; ``next`` is the ``before`` of the following page."""

    deliveries: list[DeliveryView]
    next: UUID | None

    @classmethod
    def of(cls, deliveries: list[Delivery], limit: int) -> Self:
        """Show at most ``limit`` of ``deliveries``; one more than that says that another page follows."""
        shown = [DeliveryView.model_validate(delivery) for delivery in deliveries[:limit]]
        return cls(deliveries=shown, next=shown[-1].id if len(deliveries) > limit else None)


class WebhookSecrets(BaseModel):
    """What the user's receivers verify signatures with, the current one first."""

    secrets: list[str]
