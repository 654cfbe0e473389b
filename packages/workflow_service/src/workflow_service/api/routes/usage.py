"""What a user's calls to language models took."""

import re
from typing import Annotated, Self, TypeAlias
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict

from workflow_service.api.authentication import User
from workflow_service.api.dependencies import Services
from workflow_service.domain.language_model import UsageReport

router = APIRouter(tags=["usage"])


def _written_out(value: object) -> object:
    """Refuse a number, which pydantic would take for seconds since 1970."""
    if isinstance(value, str) and not re.match(r"\d{4}-", value):
        raise ValueError("must be a moment with its time zone, such as 2026-11-30T12:00:00Z")
    return value


_Moment: TypeAlias = Annotated[AwareDatetime, BeforeValidator(_written_out)]
Since = Annotated[_Moment | None, Query(description="Calls from this moment on, with a time zone.")]
Until = Annotated[_Moment | None, Query(description="Calls before this moment, with a time zone.")]
OfRun = Annotated[UUID | None, Query(description="The calls of this run only.")]


class ModelTotalView(BaseModel):
    """What one model took; ``cost`` is in US dollars and sums the calls that had a price, null if none had one."""

    model_config = ConfigDict(from_attributes=True, protected_namespaces=())

    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    calls_without_price: int


class UsageView(BaseModel):
    """What a user's calls took: together, and by model, the dearest first.

    ``cost`` is as that of a model: 0 says that nothing was to be paid, null that nobody knows.
    """

    calls: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    calls_without_price: int
    models: list[ModelTotalView]

    @classmethod
    def of(cls, report: UsageReport) -> Self:
        """Show ``report``."""
        models = [ModelTotalView.model_validate(total) for total in report.models]
        known = [total.cost for total in models if total.cost is not None]
        return cls(
            calls=sum(total.calls for total in models),
            input_tokens=sum(total.input_tokens for total in models),
            output_tokens=sum(total.output_tokens for total in models),
            cost=None if models and not known else sum(known, 0.0),
            calls_without_price=sum(total.calls_without_price for total in models),
            models=models,
        )


@router.get("/usage")
async def usage(
    user_id: User, services: Services, since: Since = None, until: Until = None, run_id: OfRun = None
) -> UsageView:
    """Return what the user's calls to language models took: of a time, of a run, or in all."""
    return UsageView.of(await services.usage.report(user_id, since=since, until=until, run_id=run_id))
