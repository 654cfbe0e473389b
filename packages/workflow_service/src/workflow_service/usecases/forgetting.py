"""Forget what nobody needs any more: what ended runs keep, and answers of external services that are too old."""

import asyncio
import logging
from collections.abc import Mapping

from workflow_service.ports import AnswerCache, RunStore, StoreUnavailableError, Workflow
from workflow_service.usecases.afterlife import forget_ended

_INTERVAL = 60.0  # seconds
_BATCH = 5  # runs: each may take 10 s, and after a minute another process takes those again that are not forgotten

_logger = logging.getLogger(__name__)


async def forget_forever(*, runs: RunStore, workflows: Mapping[str, Workflow], interval: float) -> None:
    """Remove what ended runs keep, every ``interval`` seconds until cancelled; what fails is tried again.

    Apart from the reaper, for it may take long, and lost runs do not wait for it. Any number of processes may do
    this at once.

    Cancellation: ends the removal under way; what was not removed is due again a minute later.
    """
    while True:
        try:
            while await forget_ended(_BATCH, runs=runs, workflows=workflows) == _BATCH:
                pass
        except StoreUnavailableError as error:
            _logger.warning("ended runs: %s", error)
        except Exception:
            _logger.exception("ended runs: a pass failed; the next one follows")
        await asyncio.sleep(interval)


async def prune_forever(answers: AnswerCache) -> None:
    """Prune once a minute until cancelled; any number of processes may do this at once."""
    while True:
        try:
            while await answers.prune():
                pass
        except StoreUnavailableError as error:
            _logger.warning("old answers: %s", error)
        except Exception:
            _logger.exception("old answers: a pass failed; the next one follows")
        await asyncio.sleep(_INTERVAL)
