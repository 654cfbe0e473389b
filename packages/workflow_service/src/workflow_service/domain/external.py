"""What an external service offers and answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workflow_service.domain.run import JsonObject


@dataclass(frozen=True, slots=True)
class ExternalServiceResponse:
    """What an external service answered. ``error`` says why ``success`` is False, in words for the user."""

    success: bool
    data: Any = None  # Any: JSON
    cached: bool = False
    metadata: JsonObject = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ServiceDescription:
    """A service and, for each operation, the JSON Schema of its parameters."""

    name: str
    description: str
    operations: Mapping[str, JsonObject]
    is_configured: bool
