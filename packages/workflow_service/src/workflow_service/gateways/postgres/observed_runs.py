"""The run store of workers: notes how attempts begin and end, for the figures."""

from collections.abc import Sequence
from uuid import UUID

from workflow_service.domain.run import Claim, JsonObject, Question
from workflow_service.gateways.metrics import note_claim, note_outcome
from workflow_service.gateways.postgres.runs import PostgresRunStore


class ObservedRunStore(PostgresRunStore):
    """Fits the RunStore port; what it notes belongs to the `observed_attempt` that it is called in, if any."""

    async def claim(self, run_id: UUID, worker_id: str, lease: float) -> Claim | None:
        claim = await super().claim(run_id, worker_id, lease)
        if claim is not None:
            note_claim(claim)
        return claim

    async def succeed(self, claim: Claim, result: JsonObject) -> None:
        await super().succeed(claim, result)
        note_outcome("succeeded")

    async def fail(self, claim: Claim, error: JsonObject) -> None:
        await super().fail(claim, error)
        note_outcome("failed")

    async def cancel(self, claim: Claim) -> None:
        await super().cancel(claim)
        note_outcome("cancelled")

    async def release(self, claim: Claim) -> None:
        await super().release(claim)
        note_outcome("given back")

    async def wait_for_answers(self, claim: Claim, questions: Sequence[Question]) -> None:
        await super().wait_for_answers(claim, questions)
        note_outcome("waiting")

    async def retry_later(self, claim: Claim, error: JsonObject) -> bool:
        will_go_on = await super().retry_later(claim, error)
        note_outcome("to be retried")
        return will_go_on
