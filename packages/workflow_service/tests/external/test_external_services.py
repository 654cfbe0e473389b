"""Services over real connections to a server in the providers' formats."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest

from workflow_service.external import (
    ExternalService,
    ExternalServiceResponse,
    GooglePlaces,
    Operation,
    ServiceNotOpenError,
    ServiceResources,
    WeatherApi,
    service_registry,
)
from workflow_service.external.resources import set_current_resources
from workflow_service.ports import InvalidInputError
from workflow_service.settings import ExternalSettings, ServiceSettings
from workflow_service.testing.providers import Fault, ProviderServer
from workflow_service.testing.weather_answers import ERRORS

Run = Callable[[Callable[[], Awaitable[Any]]], Any]
MakeSettings = Callable[..., ExternalSettings]


def weather(
    run: Run, resources: ServiceResources, operation: str, params: Mapping[str, Any]
) -> ExternalServiceResponse:
    """Call WeatherAPI.com once."""

    async def scenario() -> ExternalServiceResponse:
        async with WeatherApi(resources) as service:
            return await service.call(operation, params, "alice")

    response: ExternalServiceResponse = run(scenario)
    return response


def places(
    run: Run, resources: ServiceResources, operation: str, params: Mapping[str, Any]
) -> ExternalServiceResponse:
    """Call Google Places once."""

    async def scenario() -> ExternalServiceResponse:
        async with GooglePlaces(resources) as service:
            return await service.call(operation, params, "alice")

    response: ExternalServiceResponse = run(scenario)
    return response


def circle(latitude: float, longitude: float, radius: float = 3000) -> Mapping[str, Any]:
    """A location restriction."""
    return {"circle": {"center": {"latitude": latitude, "longitude": longitude}, "radius": radius}}


def test_the_words_of_seed_002_work(run: Run, resources: ServiceResources) -> None:
    """`async with service_class() as service`, `call` by keywords, and the response's five fields."""
    set_current_resources(resources)

    async def scenario() -> Any:
        service_class = service_registry.get_service("weatherapi")
        async with service_class() as service:
            response: ExternalServiceResponse = await service.call(
                operation="current", params={"q": "Berlin"}, user_id="alice", cache_ttl=60
            )
            return {
                "success": response.success,
                "data": response.data,
                "cached": response.cached,
                "metadata": response.metadata,
                "error": response.error,
            }

    answer = run(scenario)
    assert (answer["success"], answer["cached"], answer["error"]) == (True, False, None)
    assert answer["data"]["location"]["name"] == "Berlin"
    assert answer["data"]["current"]["condition"] == {
        "text": "Light snow",
        "icon": "//cdn.weatherapi.com/weather/64x64/day/116.png",
        "code": 1213,
    }
    assert answer["metadata"].items() >= {"service": "weatherapi", "operation": "current", "attempts": 1}.items()


def test_weather_forecast_and_alerts(run: Run, resources: ServiceResources) -> None:
    """A forecast has days of 24 hours, and alerts when they are wanted."""
    params = {"q": "40.71,-74.01", "days": 3, "alerts": True, "aqi": True}
    forecast = weather(run, resources, "forecast", params).data
    days = forecast["forecast"]["forecastday"]
    assert [day["date"] for day in days] == ["2026-01-15", "2026-01-16", "2026-01-17"]
    assert [len(day["hour"]) for day in days] == [24, 24, 24]
    assert forecast["alerts"]["alert"][0]["event"] == "Blizzard Warning"
    assert forecast["current"]["air_quality"]["us-epa-index"] == 1
    alerts = weather(run, resources, "alerts", {"q": "id:2801268"}).data
    assert alerts["alerts"] == {"alert": []}
    found = weather(run, resources, "search", {"q": "lon"}).data
    assert [(place["id"], place["name"]) for place in found] == [(2801268, "London")]


def test_places_nearby_by_text_and_in_detail(run: Run, resources: ServiceResources) -> None:
    """The three operations of Places, each with the fields that were asked for and no others."""
    nearby = places(
        run,
        resources,
        "search_nearby",
        {
            "locationRestriction": circle(52.5167, 13.4),
            "includedTypes": ["hospital", "police"],
            "rankPreference": "DISTANCE",
            "fields": ["id", "displayName.text", "internationalPhoneNumber"],
        },
    ).data["places"]
    assert [place["displayName"]["text"] for place in nearby] == [
        "Berlin Central Police Station",
        "Berlin General Hospital",
        "Berlin University Hospital",
    ]
    assert set(nearby[0]) == {"id", "displayName", "internationalPhoneNumber"}
    known = places(run, resources, "details", {"placeId": nearby[0]["id"], "fields": ["formattedAddress"]})
    assert known.data == {"formattedAddress": "3 Market Street, Berlin, Germany"}
    page = places(run, resources, "search_text", {"textQuery": "hospital in Berlin", "pageSize": 1})
    rest = places(
        run, resources, "search_text", {"textQuery": "hospital in Berlin", "pageToken": page.data["nextPageToken"]}
    )
    assert [place["id"] for place in page.data["places"] + rest.data["places"]] == [
        "ChIJBER01-hospital",
        "ChIJBER02-hospital",
    ]
    assert set(page.data["places"][0]) == {
        *("id", "displayName", "formattedAddress", "location", "types", "businessStatus")
    }
    assert places(run, resources, "search_text", {"textQuery": "lighthouse"}).data == {}


@pytest.mark.parametrize("code", sorted(set(ERRORS) - {9999}))
def test_weather_errors_are_told_by_code(
    code: int, run: Run, resources: ServiceResources, providers: ProviderServer
) -> None:
    """Each of the provider's refusals is an answer with its code, tried once."""
    providers.script.faults.append(Fault("weatherapi.current", code=code, times=9))
    answer = weather(run, resources, "current", {"q": "London"})
    assert (answer.success, answer.data) == (False, None)
    assert answer.error is not None
    assert answer.error.startswith("weatherapi: ")
    assert f"({code})" in answer.error
    assert answer.metadata["code"] == code
    assert answer.metadata["status"] == ERRORS[code][0]
    assert providers.script.calls["weatherapi.current"] == 1


def test_the_providers_internal_error_is_tried_again(
    run: Run, resources: ServiceResources, providers: ProviderServer
) -> None:
    """9999 comes with status 400, but is no refusal."""
    providers.script.faults.append(Fault(code=9999))
    answer = weather(run, resources, "current", {"q": "London"})
    assert answer.success
    assert answer.metadata["attempts"] == 2


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("invalid-key", "the API key is not valid; check WORKFLOW_SERVICES__WEATHERAPI__API_KEY (2006)"),
        ("exhausted-key", "the API key has used up its calls of this month"),
        ("disabled-key", "the API key is disabled"),
    ],
)
def test_weather_key_that_is_refused(key: str, words: str, run: Run, make_settings: MakeSettings) -> None:
    """What the provider does not like about the key is said, and the key is not."""
    answer = weather(run, ServiceResources(make_settings(api_key=key)), "current", {"q": "London"})
    assert answer.error is not None
    assert words in answer.error
    assert key not in repr(answer)


def test_google_errors_are_told_by_status_and_reason(
    run: Run, make_settings: MakeSettings, resources: ServiceResources, providers: ProviderServer
) -> None:
    """google.rpc's status, and the reason of its ErrorInfo where there is one."""
    wrong_key = places(
        run, ServiceResources(make_settings(api_key="invalid-key")), "details", {"placeId": "ChIJLHR01-hospital"}
    )
    assert wrong_key.metadata["code"] == "API_KEY_INVALID"
    assert "check WORKFLOW_SERVICES__GOOGLE_PLACES__API_KEY" in str(wrong_key.error)
    no_field = places(run, resources, "details", {"placeId": "ChIJLHR01-hospital", "fields": ["colour"]})
    assert no_field.metadata["code"] == "INVALID_ARGUMENT"
    assert "Cannot find matching fields for path 'colour'" in str(no_field.error)
    providers.script.faults.append(Fault(status=429, retry_after="0"))
    providers.script.faults.append(Fault(status=503))
    again = places(run, resources, "details", {"placeId": "ChIJLHR01-hospital"})
    assert again.success
    assert again.metadata["attempts"] == 3


def test_parameters_are_checked_before_anything_is_sent(
    run: Run, resources: ServiceResources, providers: ProviderServer
) -> None:
    """What does not fit the operation's schema is refused by place."""

    def refuse(service: type[ExternalService], operation: str, params: Any, words: str) -> None:
        async def scenario() -> None:
            async with service(resources) as opened:
                with pytest.raises(InvalidInputError, match=words):
                    await opened.call(operation, params, "alice")

        run(scenario)

    refuse(WeatherApi, "tomorrow", {}, "no operation 'tomorrow'; it has: current, forecast, alerts, search")
    refuse(WeatherApi, "current", {}, "params: 'q' is a required property")
    refuse(WeatherApi, "current", {"q": 5}, r"params\.q: 5 is not of type 'string'")
    refuse(WeatherApi, "forecast", {"q": "Berlin", "days": 15}, r"params\.days: 15 is greater than the maximum")
    refuse(WeatherApi, "current", {"q": "Berlin", "key": "other"}, "'key' was unexpected")
    refuse(WeatherApi, "current", ["Berlin"], "is not of type 'object'")
    refuse(GooglePlaces, "details", {"placeId": "../secret"}, r"params\.placeId")
    refuse(GooglePlaces, "search_nearby", {"locationRestriction": circle(91, 0)}, "latitude: 91 is greater")
    assert not providers.script.calls


def test_a_service_that_is_not_configured_says_what_to_set(run: Run) -> None:
    """Without a key it is not opened, and described as not configured."""
    resources = ServiceResources(ExternalSettings())

    async def scenario() -> None:
        with pytest.raises(InvalidInputError, match="set WORKFLOW_SERVICES__WEATHERAPI__API_KEY"):
            async with WeatherApi(resources):
                pass

    run(scenario)
    assert not WeatherApi.describe(ServiceSettings()).is_configured


def test_misuse_is_refused(run: Run, resources: ServiceResources) -> None:
    """A closed service, one entered twice, and one of another loop."""
    service = WeatherApi(resources)

    async def on_one_loop() -> None:
        with pytest.raises(ServiceNotOpenError, match="within `async with`"):
            await service.call("current", {"q": "Berlin"}, "alice")
        async with service:
            with pytest.raises(ServiceNotOpenError, match="open already"):
                await service.__aenter__()
            with pytest.raises(ServiceNotOpenError, match="another loop"):
                await asyncio.to_thread(on_another)
        with pytest.raises(ServiceNotOpenError):
            await service.call("current", {"q": "Berlin"}, "alice")
        async with service:
            assert (await service.call("current", {"q": "Berlin"}, "alice")).success

    def on_another() -> None:
        asyncio.run(service.call("current", {"q": "Berlin"}, "alice"))

    run(on_one_loop)


def ends_in_an_error(service: WeatherApi, _providers: ProviderServer) -> Awaitable[None]:
    """The body raises after a call."""

    async def body() -> None:
        async with service:
            await service.call("current", {"q": "Berlin"}, "alice")
            raise LookupError("the body failed")

    async def scenario() -> None:
        with pytest.raises(LookupError):
            await body()

    return scenario()


def ends_cancelled(service: WeatherApi, providers: ProviderServer) -> Awaitable[None]:
    """The task is cancelled while the provider is silent."""

    async def body() -> None:
        async with service:
            await service.call("current", {"q": "Berlin"}, "alice")

    async def scenario() -> None:
        providers.script.delay = 60
        task = asyncio.create_task(body())
        assert await asyncio.to_thread(providers.script.called.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    return scenario()


def ends_out_of_time(service: WeatherApi, providers: ProviderServer) -> Awaitable[None]:
    """The caller's time is over."""

    async def scenario() -> None:
        providers.script.delay = 60
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), service:
                await service.call("current", {"q": "Berlin"}, "alice")

    return scenario()


@pytest.mark.parametrize("ending", [ends_in_an_error, ends_cancelled, ends_out_of_time])
def test_connections_are_closed_however_the_body_ends(
    ending: Callable[[WeatherApi, ProviderServer], Awaitable[None]],
    run: Run,
    resources: ServiceResources,
    providers: ProviderServer,
    open_sockets: Callable[[int], int],
) -> None:
    """After an error, a cancellation and a time-out no connection of the service is left."""
    port = urlsplit(providers.address).port or 0

    async def scenario() -> None:
        await ending(WeatherApi(resources), providers)
        assert open_sockets(port) == 0

    run(scenario)


def test_retry_after_goes_before_our_own_pauses(
    run: Run, make_settings: MakeSettings, providers: ProviderServer
) -> None:
    """A provider that asks for more time than the call has is not asked again."""
    providers.script.faults.append(Fault(status=429, retry_after="3600", times=9))
    answer = weather(run, ServiceResources(make_settings(timeout=5)), "current", {"q": "London"})
    assert (answer.success, answer.metadata["attempts"], answer.metadata["transient"]) == (False, 1, True)
    assert "429" in str(answer.error)


def test_an_attempt_and_a_call_have_their_time(
    run: Run, make_settings: MakeSettings, providers: ProviderServer
) -> None:
    """A silent provider costs each attempt its time, and all of them not more than the call's."""
    providers.script.delay = 60
    resources = ServiceResources(make_settings(attempt_timeout=0.05, attempts=2))
    answer = weather(run, resources, "current", {"q": "London"})
    assert answer.error == "weatherapi: no answer within 0.05 s"
    assert answer.metadata["attempts"] == 2
    resources = ServiceResources(make_settings(attempt_timeout=60, timeout=0.1))
    answer = weather(run, resources, "current", {"q": "London"})
    assert str(answer.error).startswith("weatherapi: no answer within 0.1 s, after ")


def test_answers_that_make_no_sense(run: Run, make_settings: MakeSettings, providers: ProviderServer) -> None:
    """No JSON, a size beyond the bound, and redirects to other hosts are told, once."""
    resources = ServiceResources(make_settings())
    providers.script.faults = [Fault(garbage=True)]
    assert weather(run, resources, "current", {"q": "London"}).error == "weatherapi: the answer is no JSON"
    small = ServiceResources(make_settings(max_response_bytes=100))
    answer = weather(run, small, "forecast", {"q": "London", "days": 14})
    assert answer.error == "weatherapi: the answer is larger than 100 bytes"
    for target in ("http://169.254.169.254/latest", "http://127.0.0.1:1/weatherapi/v1/current.json?q=Berlin"):
        providers.script.faults = [Fault(redirect=target)]
        answer = weather(run, resources, "current", {"q": "London"})
        assert answer.metadata["code"] == "redirects"
    providers.script.calls.clear()
    providers.script.faults = [Fault(redirect="/weatherapi/v1/current.json?q=Berlin")]
    answer = weather(run, resources, "current", {"q": "London"})
    assert answer.data["location"]["name"] == "Berlin"
    providers.script.faults = [Fault(redirect="/weatherapi/v1/current.json?q=Berlin", times=99)]
    answer = weather(run, resources, "current", {"q": "London"})
    assert answer.error == "weatherapi: the provider redirects without end"


def test_a_provider_that_is_away(run: Run, make_settings: MakeSettings, unused_port: int) -> None:
    """Nobody listens: told after the attempts."""
    resources = ServiceResources(make_settings(base_url=f"http://127.0.0.1:{unused_port}"))
    answer = weather(run, resources, "current", {"q": "London"})
    assert (answer.metadata["code"], answer.metadata["attempts"]) == ("unreachable", 3)


def test_the_circuit_opens_and_closes_again(
    run: Run, make_settings: MakeSettings, providers: ProviderServer
) -> None:
    """After the failures in a row the provider is left alone; after the pause one call tries, and all go on."""
    resources = ServiceResources(make_settings(failures_to_open=3, cooldown=3600, attempts=1))
    providers.script.faults.append(Fault(status=500, times=3))
    for _ in range(3):
        assert weather(run, resources, "current", {"q": "London"}).metadata["status"] == 500
    answer = weather(run, resources, "current", {"q": "London"})
    assert answer.metadata["code"] == "circuit-open"
    assert answer.metadata["attempts"] == 0
    assert providers.script.calls["weatherapi.current"] == 3
    places_answer = places(run, resources, "details", {"placeId": "ChIJLHR01-hospital"})
    assert places_answer.success, "each service has a circuit of its own"

    resources.limits_of("weatherapi").breaker._opened_at = float("-inf")  # the pause is over
    assert weather(run, resources, "current", {"q": "London"}).success
    assert weather(run, resources, "current", {"q": "London"}).success


class Mailer(ExternalService):
    """Changes something with every call."""

    name: ClassVar[str] = "weatherapi"
    description: ClassVar[str] = "Sends."
    base_url: ClassVar[str] = "https://mail.example"
    operations: ClassVar[Mapping[str, Operation]] = {"send": Operation({"type": "object"}, is_idempotent=False)}

    async def perform(self, operation: str, params: Mapping[str, Any]) -> Any:
        return await self.request("GET", "/current.json", query={"q": "London"})


@pytest.mark.parametrize(("status", "attempts"), [(503, 1), (500, 1), (429, 2)])
def test_what_changes_something_is_tried_again_only_if_it_was_not_done(
    status: int, attempts: int, run: Run, resources: ServiceResources, providers: ProviderServer
) -> None:
    """After 429 the provider has done nothing; after 503 nobody knows."""
    providers.script.faults.append(Fault(status=status))

    async def scenario() -> ExternalServiceResponse:
        async with Mailer(resources) as service:
            with pytest.raises(InvalidInputError, match="never cached"):
                await service.call("send", {}, "alice", cache_ttl=5)
            return await service.call("send", {}, "alice")

    answer = run(scenario)
    assert answer.metadata["attempts"] == attempts
    assert providers.script.calls["weatherapi.current"] == attempts


def test_keys_are_in_no_log_and_no_answer(
    run: Run, make_settings: MakeSettings, providers: ProviderServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a service logs, and httpx and httpcore at DEBUG, has no key; the provider got it all the same."""
    caplog.set_level(logging.DEBUG)
    for name in ("uvicorn", "uvicorn.access"):
        logging.getLogger(name).propagate = False  # the provider's side of it
    try:
        resources = ServiceResources(make_settings(api_key="s3cret-key"))
        providers.script.faults = [Fault(status=500), Fault(redirect="/weatherapi/v1/current.json?q=Berlin")]
        answers = [
            weather(run, resources, "current", {"q": "London"}),
            weather(run, resources, "current", {"q": "Atlantis"}),
            places(run, resources, "details", {"placeId": "ChIJLHR01-hospital"}),
        ]
    finally:
        for name in ("uvicorn", "uvicorn.access"):
            logging.getLogger(name).propagate = True
    assert [answer.success for answer in answers] == [True, False, True]
    assert "HTTP Request" in caplog.text
    assert "s3cret-key" not in caplog.text + repr(answers) + repr(resources.settings_of("weatherapi"))


class Wanderer(ExternalService):
    """Tries to go where it should not."""

    name: ClassVar[str] = "weatherapi"
    description: ClassVar[str] = "Goes elsewhere."
    base_url: ClassVar[str] = "https://here.example"
    operations: ClassVar[Mapping[str, Operation]] = {"go": Operation({"type": "object"})}

    async def perform(self, operation: str, params: Mapping[str, Any]) -> Any:
        return await self.request("GET", params["path"])


def test_a_service_sends_to_its_own_host_only(
    run: Run, make_settings: MakeSettings, providers: ProviderServer, unused_port: int
) -> None:
    """What a path makes of the address counts, not what it was meant to be; the key goes nowhere else."""
    resources = ServiceResources(make_settings(base_url=providers.address))

    async def scenario() -> None:
        async with Wanderer(resources) as service:
            assert (await service.call("go", {"path": "/control"}, "alice")).success
            for path in (f"@127.0.0.1:{unused_port}/", f"@evil.example:{unused_port}/"):
                answer = await service.call("go", {"path": path}, "alice")
                assert answer.metadata["code"] == "forbidden-address", path
                assert "is not the host of service 'weatherapi'" in str(answer.error)
            answer = await service.call("go", {"path": ".evil.example/"}, "alice")
            assert answer.metadata["code"] == "bad-address"

    run(scenario)
