"""Send the webhooks that are due, and keep at it."""

import asyncio
import logging
import random
from collections import Counter

from workflow_service.domain.webhook import DueDelivery, Outcome, pause_after
from workflow_service.ports import StoreUnavailableError, WebhookSender, WebhookStore

AT_ONCE = 20
"""Deliveries under way in a process."""

PER_USER = 4
"""Of one user, so that silent receivers of one do not hold up those of all others."""

_logger = logging.getLogger(__name__)


async def deliver_forever(
    *, webhooks: WebhookStore, sender: WebhookSender, attempts: int, lease: float, interval: float
) -> None:
    """Send what is due until cancelled; any number of processes may do this at once.

    Args:
        webhooks: Where the deliveries are.
        sender: Sends one.
        attempts: After so many a delivery is given up.
        lease: Seconds after which a delivery whose sender fell silent is sent again; longer than an attempt takes.
        interval: Seconds between looks while nothing is due.

    Cancellation: breaks off what is under way; it is sent again after ``lease``.
    """
    async with asyncio.TaskGroup() as group:
        under_way: dict[asyncio.Task[None], str] = {}
        served: set[str] = set()
        while True:
            due = await _take(webhooks, under_way, served, lease)
            if not due and served and len(under_way) < AT_ONCE:  # else nobody was looked for
                served.clear()  # all who wait have had their turn, and the next one begins
                continue
            served.update(delivery.user_id for delivery in due)
            for delivery in due:
                task = group.create_task(
                    _deliver(delivery, webhooks, sender, attempts), name=f"webhook {delivery.id}"
                )
                under_way[task] = delivery.user_id
                task.add_done_callback(under_way.__delitem__)
            if due or len(under_way) >= AT_ONCE:  # more may be due than there was place for
                await asyncio.wait(under_way, timeout=interval, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(interval)


async def _take(
    webhooks: WebhookStore, under_way: dict[asyncio.Task[None], str], served: set[str], lease: float
) -> list[DueDelivery]:
    free = AT_ONCE - len(under_way)
    if free <= 0:
        return []
    # Who was served gets none before the others: of a user with thousands that are due, whose receiver refuses at
    # once, some are always due and never many under way.
    counts = Counter(under_way.values()) | Counter(dict.fromkeys(served, PER_USER))
    try:
        return list(await webhooks.take_due(free, PER_USER, counts, lease))
    except StoreUnavailableError as error:
        _logger.warning("webhooks: %s", error)
    except Exception:
        # One that stops is noticed by nobody: webhooks would just never be sent again.
        _logger.exception("webhooks: a look failed; the next one follows")
    return []


async def _deliver(delivery: DueDelivery, webhooks: WebhookStore, sender: WebhookSender, attempts: int) -> None:
    try:
        await _write_down(delivery, await _sent(delivery, sender), webhooks, attempts)
    except StoreUnavailableError as error:
        _logger.warning("webhook %s: attempt %d is sent again: %s", delivery.id, delivery.attempt, error)
    except Exception:
        _logger.exception("webhook %s: attempt %d ended without an outcome", delivery.id, delivery.attempt)


async def _sent(delivery: DueDelivery, sender: WebhookSender) -> Outcome:
    try:
        return await sender.send(delivery)
    except Exception:
        # An attempt without an outcome would be due after each lease, for ever.
        _logger.exception("webhook %s: attempt %d failed unexpectedly", delivery.id, delivery.attempt)
        return Outcome(error="it could not be sent; the log of the service says why")


async def _write_down(delivery: DueDelivery, outcome: Outcome, webhooks: WebhookStore, attempts: int) -> None:
    if outcome.error is None:
        await webhooks.record(delivery, outcome, None)
        return
    if outcome.is_final or delivery.attempt >= attempts:
        _logger.warning("webhook %s is given up: %s", delivery.id, outcome.error)
        await webhooks.record(delivery, outcome, None)
        return
    pause = pause_after(delivery.attempt, outcome) * random.uniform(1.0, 1.1)  # noqa: S311  # not all at once again
    _logger.info(
        "webhook %s: attempt %d: %s; again in %.0f s", delivery.id, delivery.attempt, outcome.error, pause
    )
    await webhooks.record(delivery, outcome, pause)
