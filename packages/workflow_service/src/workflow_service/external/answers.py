"""Answers that are taken from the cache, or fetched once for all who ask for them at the same time."""

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from copy import deepcopy
from dataclasses import dataclass, replace

from workflow_service.domain.external import ExternalServiceResponse
from workflow_service.ports import AnswerCache, StoreUnavailableError

Fetch = Callable[[float], Awaitable[ExternalServiceResponse]]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Question:
    """Who asks which service what; ``what`` is canonical."""

    user_id: str
    service: str
    what: bytes

    @property
    def key(self) -> bytes:
        """The cache's key: what is asked, without the user."""
        return hashlib.sha256(self.service.encode() + b"\0" + self.what).digest()


class Answers:
    """Takes answers from the cache; of concurrent misses in a process, on whatever loops, one asks the service.

    Nothing but successes is kept. A cache that does not answer costs a warning and no call.
    """

    def __init__(self, cache: AnswerCache | None) -> None:
        """Keep answers in ``cache``; without one, only concurrent questions share an answer."""
        self._cache = cache
        self._flights: dict[Question, _Flight] = {}

    async def get(
        self, question: Question, ttl: float, fetch: Fetch, timeout: float
    ) -> ExternalServiceResponse | None:
        """Return an answer at most ``ttl`` seconds old, or what ``fetch(left)`` returns within so many seconds.

        Each caller has ``timeout`` seconds of its own, whoever asks the service for it; None says that they are
        over. What befell the one who asked concerns nobody else: its cancellation, its error, its time-out and
        whatever another attempt may not meet again let another of those who wait ask, in the time it has left.
        Who shares an answer has data of its own, and may change it.

        Cancellation: as that. The cache may have been told.
        """
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            timer = asyncio.timeout(left)
            try:
                async with timer:
                    kept = await self._find(question, ttl)
            except TimeoutError:
                if not timer.expired():
                    raise
                return None
            if kept is not None:
                return kept
            mine = _Flight(deadline)
            flight = self._flights.setdefault(question, mine)  # atomic: one of all threads gets its own
            if flight is mine:
                return await self._ask(question, ttl, fetch, mine)
            answer = await flight.wait(min(deadline, flight.deadline))
            if answer is not None:
                return replace(_own(answer), metadata={**answer.metadata, "shared": True})
            if flight.deadline <= time.monotonic():
                self._forget(question, flight)  # who asked has died with its loop, or stands still
        return None

    async def _ask(
        self, question: Question, ttl: float, fetch: Fetch, flight: "_Flight"
    ) -> ExternalServiceResponse:
        try:
            answer = await fetch(max(0.0, flight.deadline - time.monotonic()))
            if answer.success or not answer.metadata.get("transient"):
                flight.land(answer)  # before it is kept: nobody waits for the database
            if answer.success:
                await self._keep(question, ttl, answer)
        finally:
            self._forget(question, flight)
            flight.land(None)
        return _own(answer) if flight.is_shared else answer

    def _forget(self, question: Question, flight: "_Flight") -> None:
        if self._flights.get(question) is flight:
            # Another thread may have come between with a flight of its own: then there are two, and no harm.
            self._flights.pop(question, None)

    async def _find(self, question: Question, ttl: float) -> ExternalServiceResponse | None:
        if self._cache is None:
            return None
        try:
            kept = await self._cache.find(question.user_id, question.key, ttl)
        except StoreUnavailableError as error:
            _logger.warning("service %s: the cache was not asked: %s", question.service, error)
            return None
        if kept is None:
            return None
        metadata = {"service": question.service, "age": round(kept.age, 3)}
        return ExternalServiceResponse(True, kept.data, cached=True, metadata=metadata)

    async def _keep(self, question: Question, ttl: float, answer: ExternalServiceResponse) -> None:
        if self._cache is None:
            return
        try:
            await self._cache.keep(question.user_id, question.key, question.service, answer.data, ttl)
        except (StoreUnavailableError, TypeError, ValueError) as error:
            _logger.warning("service %s: an answer was not kept: %s", question.service, error)


class _Flight:
    """A question on its way. Those who wait may be on other loops; no lock, see `limits`."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        """When the one who asks has no time left, by the monotonic clock."""
        self.is_shared = False
        """Whether somebody waits, or has waited."""
        self._has_landed = False
        self._answer: ExternalServiceResponse | None = None
        self._waiting: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()

    async def wait(self, until: float) -> ExternalServiceResponse | None:
        """Return the answer; None when there is none by then, or somebody else has to ask."""
        loop = asyncio.get_running_loop()
        landing = loop.create_future()
        self.is_shared = True
        self._waiting.append((loop, landing))
        if not self._has_landed:  # looked at after the append: `land` wakes whoever is listed when it begins
            await asyncio.wait([landing], timeout=max(0.0, until - time.monotonic()))
        return self._answer

    def land(self, answer: ExternalServiceResponse | None) -> None:
        """Hand the answer to all who wait; the first landing counts."""
        if self._has_landed:
            return
        self._answer = answer
        self._has_landed = True
        while self._waiting:
            loop, landing = self._waiting.popleft()
            try:
                loop.call_soon_threadsafe(_wake, landing)
            except RuntimeError:
                pass  # its loop was closed, so nobody waits there any more


def _own(answer: ExternalServiceResponse) -> ExternalServiceResponse:
    return replace(answer, data=deepcopy(answer.data))


def _wake(landing: "asyncio.Future[None]") -> None:
    if not landing.done():
        landing.set_result(None)
