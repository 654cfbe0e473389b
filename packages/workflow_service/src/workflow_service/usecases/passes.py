"""Work of the background that is done again and again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from workflow_service.ports import StoreUnavailableError


async def repeat_forever(
    work: Callable[[], Awaitable[object]], what: str, interval: float, logger: logging.Logger
) -> None:
    """Do a pass of ``work`` every ``interval`` seconds until cancelled; one that fails is logged as ``what``.

    Cancellation: ends the pass under way.
    """
    while True:
        try:
            await work()
        except StoreUnavailableError as error:
            logger.warning("%s: %s", what, error)
        except Exception:
            # Work that stops is noticed by nobody: runs, for one, would just never be sent again.
            logger.exception("%s: a pass failed; the next one follows", what)
        await asyncio.sleep(interval)
