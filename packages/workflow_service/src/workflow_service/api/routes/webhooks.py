"""Webhooks: how their deliveries went, and what receivers verify them with."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, HTTPException, Query, Response

from workflow_service.api.authentication import User
from workflow_service.api.dependencies import Services
from workflow_service.api.problems import problems
from workflow_service.api.webhook_views import DeliveryPage, DeliveryView, WebhookSecrets
from workflow_service.domain.webhook import DeliveryStatus

router = APIRouter(prefix="/webhooks", tags=["webhooks"])


@router.get("/deliveries")
async def list_deliveries(
    user_id: User,
    services: Services,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    before: Annotated[UUID | None, Query(description="A page's ``next``.")] = None,
    run_id: Annotated[UUID | None, Query(description="Of this run only.")] = None,
    status: Annotated[DeliveryStatus | None, Query(description="In this status only.")] = None,
) -> DeliveryPage:
    """List the user's deliveries, newest first: what was sent, what failed and why, when it is tried again."""
    found = await services.webhooks.list_recent(user_id, limit + 1, before, run_id, status)
    return DeliveryPage.of(list(found), limit)


@router.post("/deliveries/{delivery_id}/retry", status_code=202, responses=problems(404))
async def retry(delivery_id: UUID, user_id: User, services: Services) -> DeliveryView:
    """Send a delivery again, now, whatever became of it; the receiver knows it by its id."""
    delivery = await services.webhooks.send_again(user_id, delivery_id)
    if delivery is None:
        raise HTTPException(404, f"There is no delivery {delivery_id}.")
    return DeliveryView.model_validate(delivery)


@router.get("/secrets")
async def secrets(user_id: User, services: Services, response: Response) -> WebhookSecrets:
    """Return what the user's receivers verify signatures with; each user has secrets of their own."""
    response.headers["Cache-Control"] = "no-store"
    return WebhookSecrets(secrets=list(services.webhook_sender.secrets_of(user_id)))
