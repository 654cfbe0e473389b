"""Forget answers of external services that nobody may use any more."""

import asyncio
import logging

from workflow_service.ports import AnswerCache, StoreUnavailableError

_INTERVAL = 60.0  # seconds

_logger = logging.getLogger(__name__)


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
