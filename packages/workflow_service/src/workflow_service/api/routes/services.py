"""External services: which there are and what they can be asked."""

from fastapi import APIRouter

from workflow_service.api.authentication import User
from workflow_service.api.dependencies import Services
from workflow_service.api.service_views import ServiceList, ServiceView

router = APIRouter(prefix="/services", tags=["services"])


@router.get("")
async def list_services(_user_id: User, services: Services) -> ServiceList:
    """List the external services that workflows can ask, with the JSON Schema of each operation's parameters."""
    return ServiceList(services=[ServiceView.of(description) for description in services.catalog.describe()])
