"""The services of a registry with the resources of a process: what workflows are given."""

from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager

from workflow_service.domain.external import ServiceDescription
from workflow_service.external.registry import ServiceRegistry
from workflow_service.external.resources import ServiceResources
from workflow_service.ports import ServiceCaller


class RegisteredServices:
    """Fits the ServiceCatalog port."""

    def __init__(self, registry: ServiceRegistry, resources: ServiceResources) -> None:
        """Offer the services of ``registry``. Loads its plug-ins, so that no call has to."""
        registry.services()
        self._registry = registry
        self._resources = resources

    def describe(self) -> Collection[ServiceDescription]:
        """Return what each service offers, by name."""
        return [
            service.describe(self._resources.settings_of(name))
            for name, service in self._registry.services().items()
        ]

    @asynccontextmanager
    async def open(self, name: str) -> AsyncGenerator[ServiceCaller, None]:
        """Open a service for the body, on the running loop; its connections are closed however the body ends.

        Raises:
            InvalidInputError: There is no such service, or it is not configured; the message says what to set.
        """
        async with self._registry.get_service(name)(self._resources) as service:
            yield service
