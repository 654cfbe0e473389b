"""emergency_contacts, on a server in the providers' formats: the whole answer, and what is left without it."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psutil
import pytest
from pydantic import SecretStr

from workflow_service.bootstrap import workflow_engine
from workflow_service.external import ServiceResources, service_registry
from workflow_service.external.catalog import RegisteredServices
from workflow_service.ports import RunContext, WorkflowError
from workflow_service.settings import ExternalSettings, Settings
from workflow_service.testing.places import PLACES
from workflow_service.testing.providers import Fault, ProviderServer
from workflow_service.workflows.engine.definition import service_problems
from workflow_service.workflows.engine.loading import shipped_definitions
from workflow_service.workflows.engine.workflow import DefinedWorkflow
from workflow_service.workflows.workflow_engine import WorkflowEngine

POOLS = 5 + 3  # connections: database_pool_size and checkpoint_pool_size

Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]


@pytest.fixture
def providers() -> Iterator[ProviderServer]:
    """The local server; afterwards it has stopped."""
    with ProviderServer() as server:
        yield server


@pytest.fixture
def settings(providers: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> ExternalSettings:
    """Settings that lead both services to the local server."""
    for name, value in providers.environment.items():
        monkeypatch.setenv(name, value)
    settings = ExternalSettings.from_environment()
    quick = {"retry_wait": 0.0, "rate_limit": 1000}
    services = {name: each.model_copy(update=quick) for name, each in settings.services.items()}
    return settings.model_copy(update={"services": services})


@pytest.fixture
def ask(settings: ExternalSettings, in_memory: Any, told: Any, run: Run) -> Callable[..., Any]:
    """Run the workflow; keys of services may be taken away or changed."""

    def asked(input_data: dict[str, Any], **keys: str | None) -> Any:
        services = {
            name: each.model_copy(update={"api_key": SecretStr(keys[name]) if keys[name] else None})
            if name in keys
            else each
            for name, each in settings.services.items()
        }
        resources = ServiceResources(settings.model_copy(update={"services": services}))
        catalog = RegisteredServices(service_registry, resources)
        definition = shipped_definitions()["emergency_contacts"]
        workflow = DefinedWorkflow(definition, catalog, None, in_memory)
        return run(lambda: workflow.run(RunContext(uuid4(), "alice", input_data, told())))

    return asked


def test_the_services_have_what_the_definition_asks(settings: ExternalSettings) -> None:
    """Operations, parameters and fixed values fit their descriptions."""
    catalog = RegisteredServices(service_registry, ServiceResources(settings))
    assert service_problems(shipped_definitions()["emergency_contacts"], catalog.describe()) == []


def test_a_place_s_contacts_numbers_and_weather_are_found(ask: Callable[..., Any]) -> None:
    """The nearest first of each kind, with telephone numbers, and official alerts."""
    answer = ask({"location": "New York", "limit": 1})
    assert answer["location"] == {
        "query": "New York",
        "name": "New York",
        "country": "US",
        "centre": {"latitude": 40.7142, "longitude": -74.0064},
    }
    assert answer["emergency_numbers"]["all"] == "911"
    assert [(each["kind"], each["name"], each["phone"]) for each in answer["contacts"]] == [
        ("hospital", "New York General Hospital", "+1 212 555 0101"),
        ("police", "New York Central Police Station", "+1 212 555 0103"),
        ("fire_station", "New York Fire Station 1", "+1 212 555 0104"),
    ]
    assert answer["weather"]["condition"] == "Blizzard"
    assert ["Blizzard Warning" in alert["headline"] for alert in answer["weather"]["alerts"]] == [True]
    assert answer["warnings"] == []


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_every_place_of_the_local_server_has_contacts(ask: Callable[..., Any], place: Any) -> None:
    """And its country's numbers."""
    answer = ask({"location": place.name})
    assert answer["location"]["country"] == place.country_code
    assert answer["emergency_numbers"]["police"]
    assert [each["kind"] for each in answer["contacts"]] == ["hospital", "hospital", "police", "fire_station"]


def test_a_radius_without_contacts_is_no_error(ask: Callable[..., Any]) -> None:
    """The lists are empty then."""
    answer = ask({"location": "Berlin", "radius_m": 100})
    assert answer["contacts"] == []
    assert answer["warnings"] == []


def test_without_keys_it_says_what_to_set(ask: Callable[..., Any]) -> None:
    """Of both services, as soon as nothing can be found out without them."""
    with pytest.raises(WorkflowError) as failed:
        ask({"location": "Berlin"}, weatherapi=None, google_places=None)
    assert "the step 'located' failed: the place could not be found" in str(failed.value)
    for name in ("WEATHERAPI", "GOOGLE_PLACES"):
        assert f"WORKFLOW_SERVICES__{name}__API_KEY" in str(failed.value)


def test_without_keys_a_country_has_its_numbers(ask: Callable[..., Any]) -> None:
    """They need no service; the warnings say what the rest needs."""
    answer = ask({"location": "Berlin", "country": "DE"}, weatherapi=None, google_places=None)
    assert answer["emergency_numbers"]["ambulance"] == "112"
    assert answer["contacts"] == []
    assert answer["location"]["centre"] is None
    assert len(answer["warnings"]) == 2


def test_without_weather_the_place_is_found_by_name(ask: Callable[..., Any], providers: ProviderServer) -> None:
    """Contacts are there, the weather is not, and the warning says why."""
    answer = ask({"location": "Tokyo", "country": "JP"}, weatherapi="invalid-key")
    assert [each["kind"] for each in answer["contacts"]] == ["hospital", "hospital", "police", "fire_station"]
    assert answer["weather"] == {"temperature_c": None, "condition": None, "wind_kph": None, "alerts": None}
    assert ["the API key is not valid" in warning for warning in answer["warnings"]] == [True]
    assert "invalid-key" not in str(answer)


def test_with_weather_alone_the_numbers_are_there(ask: Callable[..., Any]) -> None:
    """Each search that was refused is a warning."""
    answer = ask({"location": "London"}, google_places=None)
    assert answer["emergency_numbers"]["all"] == "999"
    assert answer["weather"]["condition"] == "Partly cloudy"
    assert len(answer["warnings"]) == 3


def test_a_provider_that_fails_once_is_asked_again(ask: Callable[..., Any], providers: ProviderServer) -> None:
    """By the service itself: the run does not notice."""
    providers.script.faults = [Fault(times=2)]
    assert ask({"location": "Berlin"})["warnings"] == []


@pytest.fixture
def engine(database: str, settings: ExternalSettings) -> WorkflowEngine:
    """The engine as bootstrap builds it: real services, cache, checkpoints; nothing of it is a fake."""
    given = settings.model_dump() | {"database_url": database, "broker_url": "memory://"}
    return workflow_engine(Settings(**given, api_keys={}))


@pytest.mark.needs("postgres")
def test_fresh_three_at_once_and_ten_in_a_row_succeed(
    engine: WorkflowEngine, providers: ProviderServer, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """From sync code, as a Celery task would: no loop error, no connection to a provider is left, and no more
    to the database than the pools may hold."""
    provider = int(providers.address.rpartition(":")[2])
    server = urlsplit(database).port or 5432

    def execute(city: str) -> Any:
        return engine.execute("emergency_contacts", {"location": city}, user_id="alice", timeout=60)

    def open_to(port: int) -> int:
        connections = psutil.Process().net_connections("tcp")
        return sum(bool(each.raddr) and each.raddr.port == port for each in connections)

    before = open_to(server)
    assert execute("Berlin")["warnings"] == []
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(execute, ["London", "Tokyo", "Nairobi"]))
    assert [answer["location"]["country"] for answer in answers] == ["GB", "JP", "KE"]
    for place in (*PLACES, *PLACES[:4]):
        assert execute(place.name)["location"]["country"] == place.country_code
    assert open_to(provider) == 0
    assert open_to(server) - before <= POOLS
    assert caplog.records == []


@pytest.mark.needs("postgres")
def test_a_run_is_resumed_by_another_process_s_engine(
    database: str, settings: ExternalSettings, providers: ProviderServer
) -> None:
    """What the first engine has kept in PostgreSQL the second does not ask again."""
    given = settings.model_dump() | {"database_url": database, "broker_url": "memory://"}
    chosen = Settings(**given, api_keys={})
    run_id = uuid4()

    async def dies(step: str, _percent: int, _description: str) -> None:
        if step == "centre":
            raise RuntimeError("killed")

    async def first_and_second() -> Any:
        with pytest.raises(RuntimeError, match="killed"):
            await workflow_engine(chosen).aexecute(
                "emergency_contacts", {"location": "Miami"}, user_id="alice", run_id=run_id, report=dies
            )
        asked = providers.script.calls["weatherapi.forecast"]
        answer = await workflow_engine(chosen).aexecute(
            "emergency_contacts", {"location": "Miami"}, user_id="alice", run_id=run_id
        )
        assert providers.script.calls["weatherapi.forecast"] == asked == 1
        await workflow_engine(chosen).forget("emergency_contacts", run_id)
        return answer

    assert asyncio.run(first_and_second())["location"]["country"] == "US"
