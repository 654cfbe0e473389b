"""Forget what nobody needs any more: what ended runs keep, and answers of external services that are too old."""

import logging
from collections.abc import Mapping

from workflow_service.ports import AnswerCache, RunStore, Workflow
from workflow_service.usecases.afterlife import forget_ended
from workflow_service.usecases.passes import repeat_forever

_INTERVAL = 60.0  # seconds
_BATCH = 5  # runs: each may take 10 s, and after a minute another process takes those again that are not forgotten

_logger = logging.getLogger(__name__)


async def forget_forever(*, runs: RunStore, workflows: Mapping[str, Workflow], interval: float) -> None:
    """Remove what ended runs keep, every ``interval`` seconds until cancelled; what fails is tried again.

    Apart from the reaper, for it may take long, and lost runs do not wait for it. Any number of processes may do
    this at once.

    Cancellation: ends the removal under way; what was not removed is due again a minute later.
    """

    async def forget_all() -> None:
        while await forget_ended(_BATCH, runs=runs, workflows=workflows) == _BATCH:
            pass

    await repeat_forever(forget_all, "ended runs", interval, _logger)


async def prune_forever(answers: AnswerCache) -> None:
    """Prune once a minute until cancelled; any number of processes may do this at once."""

    async def prune_all() -> None:
        while await answers.prune():
            pass

    await repeat_forever(prune_all, "old answers", _INTERVAL, _logger)
