"""How a step ended, as other steps read it."""

from dataclasses import asdict, dataclass, field
from enum import StrEnum

from workflow_service.domain.run import JsonObject
from workflow_service.workflows.engine.source import Json


class StepStatus(StrEnum):
    """How a step ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What expressions read as ``steps.NAME``.

    ``data`` of a failed step is its ``on_error`` default, else null; ``error`` says why it failed.
    """

    status: StepStatus
    data: Json = None
    error: str | None = None
    cached: bool = False
    metadata: JsonObject = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        """Return the outcome as expressions see it."""
        return {"success": self.status is StepStatus.SUCCEEDED, **asdict(self), "status": self.status.value}

    @classmethod
    def from_json(cls, value: JsonObject) -> "Outcome":
        """Return the outcome that `to_json` has written."""
        status, data, error, cached, metadata = (value[name] for name in OUTCOME_FIELDS[1:])
        return cls(StepStatus(status), data, error, cached, metadata)


OUTCOME_FIELDS = tuple(Outcome(StepStatus.SUCCEEDED).to_json())
"""What there is of ``steps.NAME``."""
