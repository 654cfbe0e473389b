"""What a language model answered, and what that took."""

from collections.abc import Sequence
from dataclasses import dataclass

from workflow_service.domain.run import JsonObject

_PRICED_TOKENS = 1_000_000


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """Tokens of a call, and what they cost in US dollars: None is unknown, no price being set; 0.0 is free."""

    model: str
    input_tokens: int
    output_tokens: int
    cost: float | None = None

    def plus(self, other: "ModelUsage") -> "ModelUsage":
        """Return both together, under this one's model; without a price if either has none."""
        has_price = self.cost is not None and other.cost is not None
        cost = (self.cost or 0) + (other.cost or 0) if has_price else None
        return ModelUsage(
            self.model, self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens, cost
        )

    def to_json(self) -> JsonObject:
        """Return the usage as JSON."""
        return {
            "model": self.model,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost": self.cost,
        }


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """The answer as text and, when a schema was asked for, as an object that fits it.

    ``usage`` counts all calls that the answer took, those whose answer did not fit the schema included.
    """

    text: str
    data: JsonObject | None
    usage: ModelUsage


@dataclass(frozen=True, slots=True)
class ModelPrices:
    """US dollars per million tokens."""

    input: float
    output: float

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """Return what a call costs, in US dollars."""
        return (input_tokens * self.input + output_tokens * self.output) / _PRICED_TOKENS


@dataclass(frozen=True, slots=True)
class ModelTotal:
    """What one model took over some calls. ``cost`` sums those that had a price; None when none of them had."""

    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    calls_without_price: int


@dataclass(frozen=True, slots=True)
class UsageReport:
    """What a user's calls took, by model, the dearest first."""

    models: Sequence[ModelTotal]
