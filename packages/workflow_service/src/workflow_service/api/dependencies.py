"""What routes are given."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import Depends, Request

from workflow_service.api.readiness import Readiness
from workflow_service.usecases.services import ApiServices


async def _services(request: Request) -> ApiServices:
    services: ApiServices = request.state.services
    return services


async def _upload_slots(request: Request) -> asyncio.Semaphore:
    slots: asyncio.Semaphore = request.state.upload_slots
    return slots


async def _readiness(request: Request) -> Readiness:
    readiness: Readiness = request.state.readiness
    return readiness


async def _loops(request: Request) -> Callable[[], Mapping[str, Any]]:
    loops: Callable[[], Mapping[str, Any]] = request.state.loops
    return loops


Services = Annotated[ApiServices, Depends(_services)]
"""The ports, opened by the app's lifespan."""

UploadSlots = Annotated[asyncio.Semaphore, Depends(_upload_slots)]
"""Held while a file is in memory: so many at once, and the others wait on disk."""

Loops = Annotated[Callable[[], Mapping[str, Any]], Depends(_loops)]  # Any: JSON
"""What the health monitor has to tell of this process."""

Ready = Annotated[Readiness, Depends(_readiness)]
"""Which parts of the service can be used."""
