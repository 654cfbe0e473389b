"""What routes are given."""

from typing import Annotated

from fastapi import Depends, Request

from workflow_service.usecases.services import ApiServices


async def _services(request: Request) -> ApiServices:
    services: ApiServices = request.state.services
    return services


Services = Annotated[ApiServices, Depends(_services)]
"""The ports, opened by the app's lifespan."""
