"""What a language model answered, and what that took."""

from dataclasses import dataclass

from workflow_service.domain.run import JsonObject


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """Tokens of a call, and what they cost; ``cost`` is in US dollars, None when the model has no price."""

    model: str
    input_tokens: int
    output_tokens: int
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """The answer as text and, when a schema was asked for, as an object that fits it."""

    text: str
    data: JsonObject | None
    usage: ModelUsage
