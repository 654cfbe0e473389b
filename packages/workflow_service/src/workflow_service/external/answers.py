"""Answers that are taken from the cache, or fetched once for all who ask for them at the same time."""

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from workflow_service.domain.external import ExternalServiceResponse
from workflow_service.ports import AnswerCache, StoreUnavailableError

Fetch = Callable[[], Awaitable[ExternalServiceResponse]]

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

    async def get(self, question: Question, ttl: float, fetch: Fetch) -> ExternalServiceResponse:
        """Return an answer at most ``ttl`` seconds old, or what ``fetch()`` returns.

        Cancellation: of the one who asks the service lets another of those who wait ask it.
        """
        while True:
            if (kept := await self._find(question, ttl)) is not None:
                return kept
            mine = _Flight()
            flight = self._flights.setdefault(question, mine)  # atomic: one of all threads gets its own
            if flight is not mine:
                answer = await flight.wait()
                if answer is not None:
                    return replace(answer, metadata={**answer.metadata, "shared": True})
                continue
            answer = None
            try:
                answer = await fetch()
                if answer.success:
                    await self._keep(question, ttl, answer)
                return answer
            finally:
                del self._flights[question]
                mine.land(answer)

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

    def __init__(self) -> None:
        self._has_landed = False
        self._answer: ExternalServiceResponse | None = None
        self._waiting: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()

    async def wait(self) -> ExternalServiceResponse | None:
        """Return the answer; None when there is none, and somebody else has to ask."""
        loop = asyncio.get_running_loop()
        landing = loop.create_future()
        self._waiting.append((loop, landing))
        if not self._has_landed:  # looked at after the append: `land` wakes whoever is listed when it begins
            await landing
        return self._answer

    def land(self, answer: ExternalServiceResponse | None) -> None:
        """Hand the answer to all who wait."""
        self._answer = answer
        self._has_landed = True
        while self._waiting:
            loop, landing = self._waiting.popleft()
            try:
                loop.call_soon_threadsafe(_wake, landing)
            except RuntimeError:
                pass  # its loop was closed, so nobody waits there any more


def _wake(landing: "asyncio.Future[None]") -> None:
    if not landing.done():
        landing.set_result(None)
