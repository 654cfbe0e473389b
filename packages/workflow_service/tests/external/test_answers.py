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

        async def never(_left: float) -> ExternalServiceResponse:
            asked.append("never")
            began.set()
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

        async def broken(_left: float) -> ExternalServiceResponse:
            asked.append("broken")
            raise LookupError("a fault of the plug-in")

        async def good(_left: float) -> ExternalServiceResponse:
            asked.append("good")
            return ExternalServiceResponse(True, 1)

        first = asyncio.create_task(answers.get(question, 60, never, 60))
        await began.wait()
        second = asyncio.create_task(answers.get(question, 60, broken, 60))
        third = asyncio.create_task(answers.get(question, 60, good, 60))
        fourth = asyncio.create_task(answers.get(question, 60, good, 60))
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


def test_what_befell_the_one_who_asked_concerns_nobody_else(run: Run) -> None:
    """Its time-out, and what another attempt may not meet again, lets the next one ask; a refusal is shared."""
    answers = Answers(None)
    question = Question("alice", "weatherapi", b"{}")

    async def ask_beside(first_answer: ExternalServiceResponse) -> list[ExternalServiceResponse | None]:
        gate = asyncio.Event()
        lefts: list[float] = []

        async def first(_left: float) -> ExternalServiceResponse:
            await gate.wait()
            return first_answer

        async def later(left: float) -> ExternalServiceResponse:
            lefts.append(left)
            await _until(lambda: bool(_waiting(answers)))
            return ExternalServiceResponse(True, "asked again")

        tasks = [asyncio.create_task(answers.get(question, 60, each, 30)) for each in (first, later, later)]
        await _until(lambda: len(_waiting(answers)) == 2)
        gate.set()
        results = await asyncio.gather(*tasks)
        assert all(0 < left < 30 for left in lefts), "in the time that is left"
        return results

    async def scenario() -> None:
        timed_out = ExternalServiceResponse(False, error="late", metadata={"code": "timeout", "transient": True})
        first, second, third = await ask_beside(timed_out)
        assert first == timed_out
        assert [each.data for each in (second, third) if each] == ["asked again"] * 2
        assert [each.metadata.get("shared") for each in (second, third) if each] == [None, True], "asked once more"
        refused = ExternalServiceResponse(False, error="no such place", metadata={"transient": False})
        first, second, third = await ask_beside(refused)
        assert first == refused
        assert [each.error for each in (second, third) if each] == ["no such place"] * 2

    run(scenario)


def test_who_waits_has_a_time_of_its_own(run: Run) -> None:
    """However long the one who asks may take: a caller in a hurry is told, and the others go on waiting."""
    answers = Answers(None)
    question = Question("alice", "weatherapi", b"{}")

    async def scenario() -> None:
        gate = asyncio.Event()

        async def slow(_left: float) -> ExternalServiceResponse:
            await gate.wait()
            return ExternalServiceResponse(True, "slow")

        async def unasked(_left: float) -> ExternalServiceResponse:
            raise AssertionError("another one asks")

        first = asyncio.create_task(answers.get(question, 60, slow, 60))
        await _until(lambda: question in answers._flights)
        patient = asyncio.create_task(answers.get(question, 60, unasked, 60))
        assert await answers.get(question, 60, unasked, 0.05) is None
        gate.set()
        results = await asyncio.gather(first, patient)
        assert [each.data for each in results if each] == ["slow", "slow"]
        assert not answers._flights

    run(scenario)


def test_who_asked_and_died_with_its_loop_is_not_waited_for(run: Run) -> None:
    """Its loop stopped for good: once its time is over another one asks, and so does whoever comes later."""
    answers = Answers(None)
    question = Question("alice", "weatherapi", b"{}")

    async def good(_left: float) -> ExternalServiceResponse:
        return ExternalServiceResponse(True, "good")

    async def never(_left: float) -> ExternalServiceResponse:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    dead = asyncio.new_event_loop()
    task = dead.create_task(answers.get(question, 60, never, 0.05))
    while question not in answers._flights:
        dead.run_until_complete(asyncio.sleep(0))
    try:

        async def scenario() -> None:
            for _ in range(2):
                answer = await answers.get(question, 60, good, 30)
                assert answer is not None
                assert answer.data == "good"

        run(scenario)
    finally:
        task.cancel()
        dead.run_until_complete(asyncio.wait([task]))
        dead.close()
    assert not answers._flights


def test_a_cache_that_is_slow_holds_up_nobody_who_waits(run: Run) -> None:
    """They have their answer before it is kept, and a call that only waits for the cache ends with its time."""

    async def scenario() -> None:
        gate = asyncio.Event()

        class SlowCache:
            async def find(self, user_id: str, key: bytes, max_age: float) -> KeptAnswer | None:
                if user_id == "bob":
                    await gate.wait()
                return None

            async def keep(self, user_id: str, key: bytes, service: str, data: Any, ttl: float) -> None:
                await gate.wait()

        answers = Answers(SlowCache())
        question = Question("alice", "weatherapi", b"{}")

        async def good(_left: float) -> ExternalServiceResponse:
            return ExternalServiceResponse(True, "good")

        first = asyncio.create_task(answers.get(question, 60, good, 30))
        await _until(lambda: question in answers._flights)
        second = await answers.get(question, 60, good, 30)
        assert second is not None
        assert second.metadata == {"shared": True}
        assert not first.done()
        assert await answers.get(Question("bob", "weatherapi", b"{}"), 60, good, 0.05) is None
        gate.set()
        assert await first == ExternalServiceResponse(True, "good")

    run(scenario)


async def _until(condition: Callable[[], bool]) -> None:
    """Let the loop go round until it is so; the scenario has a bound."""
    while not condition():  # noqa: ASYNC110  the parts looked at have no event
        await asyncio.sleep(0)


def _waiting(answers: Answers) -> list[Any]:
    return [each for flight in answers._flights.values() for each in flight._waiting]


def _wait(condition: Callable[[], bool]) -> None:
    bound = threading.Event()
    for _ in range(3000):
        if condition():
            return
        bound.wait(0.01)
    raise AssertionError("waited too long")


@pytest.mark.parametrize("has_cache", [True, False])
def test_who_shares_an_answer_may_change_it(run: Run, has_cache: bool) -> None:
    """Each has data of its own: neither the others nor the cache see what one makes of them."""
    kept: list[Any] = []

    class SlowCache:
        async def find(self, *_: Any) -> None:
            return None

        async def keep(self, _user: str, _key: bytes, _service: str, data: Any, _ttl: float) -> None:
            for _ in range(10):  # those who wait have the answer by then
                await asyncio.sleep(0)
            kept.append(str(data))

    async def main() -> None:
        answers = Answers(SlowCache() if has_cache else None)
        is_asked, gate = asyncio.Event(), asyncio.Event()

        async def fetch(_left: float) -> ExternalServiceResponse:
            is_asked.set()
            await gate.wait()
            return ExternalServiceResponse(True, {"who": []})

        async def ask(who: str) -> ExternalServiceResponse | None:
            answer = await answers.get(Question("alice", "weatherapi", b"{}"), 60, fetch, 30)
            assert answer is not None
            answer.data["who"].append(who)
            return answer

        first = asyncio.create_task(ask("first"))
        await is_asked.wait()
        others = [asyncio.create_task(ask(who)) for who in ("second", "third")]
        for _ in range(5):
            await asyncio.sleep(0)
        gate.set()
        given = await asyncio.gather(first, *others)
        assert [answer and answer.data for answer in given] == [
            {"who": ["first"]},
            {"who": ["second"]},
            {"who": ["third"]},
        ]

    run(main)
    assert kept == (["{'who': []}"] if has_cache else [])
