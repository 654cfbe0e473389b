"""Answers from the cache in PostgreSQL, and concurrent questions that share one."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

import homeloop
from workflow_service.bootstrap import worker_services
from workflow_service.external import (
    ExternalServiceResponse,
    GooglePlaces,
    ServiceResources,
    WeatherApi,
    service_registry,
)
from workflow_service.external.answers import Answers, Question
from workflow_service.gateways.postgres.service_answers import PostgresAnswerCache
from workflow_service.ports import KeptAnswer, StoreUnavailableError
from workflow_service.settings import ExternalSettings, Settings
from workflow_service.testing.providers import Fault, ProviderServer

WithPool = Callable[[Callable[[Any], Awaitable[Any]]], Any]
Run = Callable[[Callable[[], Awaitable[Any]]], Any]
MakeSettings = Callable[..., ExternalSettings]
KEY = b"k" * 32


@pytest.mark.needs("postgres")
def test_an_answer_is_kept_for_the_user_who_asked(
    with_pool: WithPool, make_settings: MakeSettings, providers: ProviderServer
) -> None:
    """The second call is answered from the cache; another user, operation or parameter, or no ttl, asks again."""

    async def scenario(pool: asyncpg.Pool) -> None:
        resources = ServiceResources(make_settings(), PostgresAnswerCache(pool.acquire, 100))
        calls = providers.script.calls
        async with WeatherApi(resources) as service:
            first = await service.call("current", {"q": "Berlin", "aqi": False}, "alice", cache_ttl=60)
        async with WeatherApi(resources) as service:
            again = await service.call("current", {"aqi": False, "q": "Berlin"}, "alice", cache_ttl=60)
            assert (first.cached, again.cached, again.success) == (False, True, True)
            assert again.data == first.data
            assert again.metadata["service"] == "weatherapi"
            assert 0 <= again.metadata["age"] < 30
            assert calls["weatherapi.current"] == 1
            for params, user, ttl in (
                ({"q": "Berlin", "aqi": False}, "bob", 60),
                ({"q": "Tokyo", "aqi": False}, "alice", 60),
                ({"q": "Berlin", "aqi": False}, "alice", None),
                ({"q": "Berlin", "aqi": False}, "alice", 0),
            ):
                answer = await service.call("current", params, user, cache_ttl=ttl)
                assert not answer.cached
            assert calls["weatherapi.current"] == 5
            assert not (await service.call("alerts", {"q": "Berlin"}, "alice", cache_ttl=60)).cached
        stored = await pool.fetch("SELECT * FROM workflow.service_answers")
        assert len(stored) == 4
        assert "test-key" not in repr(stored)

    with_pool(scenario)


@pytest.mark.needs("postgres")
def test_age_is_told_by_the_databases_clock(with_pool: WithPool) -> None:
    """An answer is as young as its reader wants it; expired ones are removed."""

    async def scenario(pool: asyncpg.Pool) -> None:
        cache = PostgresAnswerCache(pool.acquire, 100)
        await cache.keep("alice", KEY, "weatherapi", {"degrees": 3}, 60)
        await pool.execute("UPDATE workflow.service_answers SET stored_at = stored_at - interval '100 s'")
        assert await cache.find("alice", KEY, 99) is None
        kept = await cache.find("alice", KEY, 200)
        assert kept is not None
        assert kept.data == {"degrees": 3}
        assert 100 <= kept.age < 130
        assert await cache.find("bob", KEY, 200) is None
        assert await cache.prune() == 0
        await pool.execute("UPDATE workflow.service_answers SET expires_at = clock_timestamp() - interval '1 s'")
        await cache.keep("bob", KEY, "weatherapi", 1, 60)
        assert await cache.prune() == 1
        assert await pool.fetch("SELECT user_id FROM workflow.service_answers") == [("bob",)]

    with_pool(scenario)


@pytest.mark.needs("postgres")
def test_a_users_cache_is_bounded(with_pool: WithPool) -> None:
    """The oldest make place, another user's stay; what is too large, and no JSON, is not kept."""

    async def scenario(pool: asyncpg.Pool) -> None:
        cache = PostgresAnswerCache(pool.acquire, 3)
        await cache.keep("bob", KEY, "weatherapi", "bob's", 60)
        for number in range(6):
            await cache.keep("alice", bytes([number]) * 32, "weatherapi", number, 60)
        await cache.keep("alice", bytes([5]) * 32, "weatherapi", "new", 60)
        found = [await cache.find("alice", bytes([number]) * 32, 60) for number in range(6)]
        assert [kept and kept.data for kept in found] == [None, None, None, 3, 4, "new"]
        assert await cache.find("bob", KEY, 60) is not None
        for wrong in ("x" * 1024 * 1024, float("nan")):
            with pytest.raises(ValueError, match=r"more than|not JSON compliant"):
                await cache.keep("alice", KEY, "weatherapi", wrong, 60)
        assert await cache.find("alice", KEY, 60) is None

    with_pool(scenario)


@pytest.mark.needs("postgres")
def test_failures_are_not_kept(
    with_pool: WithPool, make_settings: MakeSettings, providers: ProviderServer
) -> None:
    """Refusals neither."""

    async def scenario(pool: asyncpg.Pool) -> None:
        resources = ServiceResources(make_settings(attempts=1), PostgresAnswerCache(pool.acquire, 100))
        providers.script.faults.append(Fault(status=503))
        async with WeatherApi(resources) as weather, GooglePlaces(resources) as google:
            assert not (await weather.call("current", {"q": "Berlin"}, "alice", cache_ttl=60)).success
            assert not (await google.call("details", {"placeId": "nowhere"}, "alice", cache_ttl=60)).success
            answer = await weather.call("current", {"q": "Berlin"}, "alice", cache_ttl=60)
            assert (answer.success, answer.cached) == (True, False)
        assert await pool.fetchval("SELECT count(*) FROM workflow.service_answers") == 1

    with_pool(scenario)


@pytest.mark.needs("postgres")
def test_a_worker_shares_its_cache_with_whoever_opens_a_service(
    database: str, make_settings: MakeSettings, providers: ProviderServer
) -> None:
    """Also code that opens one by itself, on the loop that stays and on another one."""
    external = make_settings()
    worker_services(
        Settings(
            database_url=database,
            broker_url="memory://",
            services=external.services,
            private_hosts=external.private_hosts,
        )
    )

    async def ask() -> bool:
        async with service_registry.get_service("weatherapi")() as service:
            return (await service.call("current", {"q": "Berlin"}, "alice", cache_ttl=60)).cached

    try:
        assert homeloop.run(ask) is False
        assert homeloop.run(ask) is True
        with homeloop.LoopRuntime() as other:
            assert other.run(ask) is True
    finally:
        homeloop.default_runtime().close()
    assert providers.script.calls["weatherapi.current"] == 1


def test_a_cache_that_is_away_costs_a_warning(
    run: Run, resources: ServiceResources, caplog: pytest.LogCaptureFixture
) -> None:
    """The provider is asked instead."""

    class AwayCache:
        async def find(self, user_id: str, key: bytes, max_age: float) -> KeptAnswer | None:
            raise StoreUnavailableError("the database did not answer")

        async def keep(self, user_id: str, key: bytes, service: str, data: Any, ttl: float) -> None:
            raise StoreUnavailableError("the database did not answer")

    resources.answers = Answers(AwayCache())

    async def scenario() -> None:
        async with WeatherApi(resources) as service:
            answer = await service.call("current", {"q": "Berlin"}, "alice", cache_ttl=60)
            assert (answer.success, answer.cached) == (True, False)

    with caplog.at_level(logging.WARNING):
        run(scenario)
    assert "the cache was not asked" in caplog.text
    assert "an answer was not kept" in caplog.text


def test_concurrent_questions_of_a_process_are_asked_once(
    resources: ServiceResources, providers: ProviderServer
) -> None:
    """On three loops, five each: one call reaches the provider; another user's question is another one."""
    gate = providers.script.gate = threading.Event()
    answers: list[ExternalServiceResponse] = []

    async def ask(user_id: str) -> None:
        async with WeatherApi(resources) as service:
            answers.append(await service.call("current", {"q": "Berlin"}, user_id, cache_ttl=60))

    async def several() -> None:
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(ask("alice"))

    threads = [threading.Thread(target=asyncio.run, args=[several()]) for _ in range(3)]
    for thread in threads:
        thread.start()
    flights = resources.answers._flights
    _wait(lambda: any(len(flight._waiting) == 14 for flight in list(flights.values())))
    bob = threading.Thread(target=asyncio.run, args=[ask("bob")])
    bob.start()
    _wait(lambda: providers.script.calls["weatherapi.current"] == 2)
    gate.set()
    for thread in (*threads, bob):
        thread.join(30)
    assert len(answers) == 16
    assert all(answer.success for answer in answers)
    assert sum("shared" in answer.metadata for answer in answers) == 14
    assert providers.script.calls["weatherapi.current"] == 2
    assert not flights


def test_a_cancelled_question_lets_another_ask(run: Run) -> None:
    """Nobody waits for an answer that will not come; an error of the one who asks is its own."""
    answers = Answers(None)
    question = Question("alice", "weatherapi", b"{}")
    asked: list[str] = []

    async def scenario() -> None:
        began = asyncio.Event()

        async def never() -> ExternalServiceResponse:
            asked.append("never")
            began.set()
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

        async def broken() -> ExternalServiceResponse:
            asked.append("broken")
            raise LookupError("a fault of the plug-in")

        async def good() -> ExternalServiceResponse:
            asked.append("good")
            return ExternalServiceResponse(True, 1)

        first = asyncio.create_task(answers.get(question, 60, never))
        await began.wait()
        second = asyncio.create_task(answers.get(question, 60, broken))
        third = asyncio.create_task(answers.get(question, 60, good))
        fourth = asyncio.create_task(answers.get(question, 60, good))
        await asyncio.sleep(0)
        fourth.cancel()
        first.cancel()
        results = await asyncio.gather(first, second, third, fourth, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert isinstance(results[1], LookupError)
        assert results[2] == ExternalServiceResponse(True, 1)
        assert isinstance(results[3], asyncio.CancelledError)
        assert asked == ["never", "broken", "good"]

    run(scenario)


def _wait(condition: Callable[[], bool]) -> None:
    bound = threading.Event()
    for _ in range(3000):
        if condition():
            return
        bound.wait(0.01)
    raise AssertionError("waited too long")
