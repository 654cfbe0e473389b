"""What external services look like in JSON."""

from typing import Any, Self

from pydantic import BaseModel

from workflow_service.domain.external import ServiceDescription


class ServiceView(BaseModel):
    """An external service; ``operations`` has the JSON Schema of each one's parameters."""

    name: str
    description: str
    operations: dict[str, dict[str, Any]]  # Any: JSON Schema
    is_configured: bool

    @classmethod
    def of(cls, description: ServiceDescription) -> Self:
        """Show ``description``."""
        operations = {name: dict(schema) for name, schema in description.operations.items()}
        return cls(
            name=description.name,
            description=description.description,
            operations=operations,
            is_configured=description.is_configured,
        )


class ServiceList(BaseModel):
    """The external services there are, by name."""

    services: list[ServiceView]
