"""One call as a row of attempts: each waits for its turn, and what may be tried again is."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import stamina

from workflow_service.external.faults import ServiceCallError
from workflow_service.external.limits import CIRCUIT_OPEN, CircuitBreaker, RateLimit
from workflow_service.settings import ServiceSettings

_LONGEST_PAUSE = 10.0  # seconds between attempts, unless the provider asks for more


class Limits:
    """What all callers of a service in this process share."""

    def __init__(self, settings: ServiceSettings) -> None:
        """Start with every place free and the service taken for well."""
        self.rate = RateLimit(settings.rate_limit, settings.rate_period)
        self.breaker = CircuitBreaker(settings.failures_to_open, settings.cooldown)


@dataclass(slots=True)
class Course:
    """How a call went: counted while it goes."""

    attempts: int = 0


async def try_until_answered(
    attempt: Callable[[], Awaitable[Any]],  # Any: JSON
    *,
    settings: ServiceSettings,
    timeout: float,
    limits: Limits,
    is_idempotent: bool,
    course: Course,
) -> Any:  # Any: JSON
    """Return what ``attempt()`` returns, tried again as the settings say, within ``timeout`` seconds.

    ``course`` is told how it goes.

    Tried again is what `ServiceCallError` calls transient; of an operation that is not idempotent only what the
    provider cannot have worked on. Retry-After goes before our own pauses, unless there is no time left for it.

    Raises:
        ServiceCallError: The last attempt's, or the call's time was over.
    """
    deadline = time.monotonic() + timeout

    def pause(error: Exception) -> bool | float:
        if not isinstance(error, ServiceCallError) or not error.is_transient or error.code == CIRCUIT_OPEN:
            return False
        if error.was_done and not is_idempotent:
            return False
        if error.retry_after is None:
            return True
        return error.retry_after if time.monotonic() + error.retry_after < deadline else False

    timer = asyncio.timeout(timeout)
    try:
        async with timer:
            async for turn in stamina.retry_context(
                on=pause,
                attempts=settings.attempts,
                timeout=None,
                wait_initial=settings.retry_wait,
                wait_max=_LONGEST_PAUSE,
                wait_jitter=settings.retry_wait,
            ):
                with turn:
                    return await _one_attempt(attempt, settings, limits, course)
    except TimeoutError:
        if not timer.expired():
            raise  # the plug-in's own
        raise ServiceCallError(
            f"no answer within {timeout:.3g} s, after {course.attempts} attempts",
            "timeout",
            is_transient=True,
        ) from None
    raise AssertionError("unreachable: the last attempt returns or raises")


async def _one_attempt(
    attempt: Callable[[], Awaitable[Any]],  # Any: JSON
    settings: ServiceSettings,
    limits: Limits,
    course: Course,
) -> Any:  # Any: JSON
    is_probe = limits.breaker.enter()
    has_failed: bool | None = None
    try:
        await limits.rate.wait()
        course.attempts += 1
        data = await _in_time(attempt, settings.attempt_timeout)
        has_failed = False
        return data
    except ServiceCallError as error:
        has_failed = _speaks_of_failure(error)
        raise
    finally:
        limits.breaker.leave(is_probe, has_failed=has_failed)


async def _in_time(attempt: Callable[[], Awaitable[Any]], bound: float) -> Any:  # Any: JSON
    timer = asyncio.timeout(bound)
    try:
        async with timer:
            return await attempt()
    except TimeoutError as error:
        if not timer.expired():
            raise  # the plug-in's own
        raise ServiceCallError(f"no answer within {bound:g} s", "timeout", is_transient=True) from error


def _speaks_of_failure(fault: ServiceCallError) -> bool | None:
    """Say whether a fault means that the service is not well: a refusal of one request does not, nor of a rate."""
    if fault.status == 429:
        return None
    return fault.is_transient
