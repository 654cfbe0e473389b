"""Services that ship, that programs register, and that come as plug-ins."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from workflow_service.external import (
    ExternalService,
    GooglePlaces,
    Operation,
    ServiceRegistry,
    ServiceResources,
    WeatherApi,
    service_registry,
)
from workflow_service.external.catalog import RegisteredServices
from workflow_service.ports import InvalidInputError
from workflow_service.settings import ExternalSettings

PLUGIN = """
from workflow_service.external import ExternalService, Operation

class Tides(ExternalService):
    name = "tides"
    description = "High and low water."
    base_url = "https://tides.example/v1"
    needs_key = False
    operations = {"next": Operation({"type": "object", "description": "The next high water."})}

    async def perform(self, operation, params):
        return await self.request("GET", "/next", query=params)

class Nameless(Tides):
    name = "other"

class Unfinished(ExternalService):
    name = "unfinished"
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a distribution with entry points, as pip does."""

    def make(module: str, source: str, **entry_points: str) -> None:
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in entry_points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[workflow_service.external_services]", *lines]))
        monkeypatch.delitem(sys.modules, module, raising=False)

    monkeypatch.syspath_prepend(tmp_path)
    return make


class Echo(ExternalService):
    """Enough of a service."""

    name: ClassVar[str] = "echo"
    description: ClassVar[str] = "Says it again."
    base_url: ClassVar[str] = "https://echo.example"
    operations: ClassVar[Mapping[str, Operation]] = {"say": Operation({"type": "object"})}

    async def perform(self, operation: str, params: Mapping[str, Any]) -> Any:
        return params


def test_the_services_that_ship_are_there() -> None:
    """In the process's registry."""
    assert service_registry.get_service("weatherapi") is WeatherApi
    assert service_registry.get_service("google_places") is GooglePlaces
    with pytest.raises(InvalidInputError, match="no external service 'wether'; known: google_places, weatherapi"):
        service_registry.get_service("wether")


def test_plugins_are_found_and_broken_ones_named(
    install: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """A plug-in that cannot be used says why when it is asked for; the others work."""
    install(
        "tides_plugin",
        PLUGIN,
        tides="tides_plugin:Tides",
        nameless="tides_plugin:Nameless",
        unfinished="tides_plugin:Unfinished",
        absent="tides_plugin:Absent",
        weatherapi="tides_plugin:Tides",
    )
    install("broken_plugin", "raise RuntimeError('no licence')", broken="broken_plugin:Service")
    registry = ServiceRegistry([WeatherApi])
    assert set(registry.services()) == {"tides", "weatherapi"}
    assert registry.get_service("weatherapi") is WeatherApi
    assert registry.get_service("tides").__module__ == "tides_plugin"
    assert set(registry.broken()) == {"nameless", "unfinished", "absent", "broken", "weatherapi"}
    reasons = {
        "broken": "plug-in broken_plugin:Service of broken_plugin: RuntimeError: no licence",
        "nameless": "its class names itself 'other'",
        "unfinished": "Unfinished must define perform",
        "absent": "has no attribute 'Absent'",
    }
    for name, reason in reasons.items():
        with pytest.raises(InvalidInputError, match=reason):
            registry.get_service(name)
        assert reason in caplog.text
    described = RegisteredServices(registry, ServiceResources(ExternalSettings())).describe()
    assert [(each.name, each.is_configured) for each in described] == [("tides", True), ("weatherapi", False)]


def test_what_cannot_be_registered_is_refused() -> None:
    """With words that say what to write."""
    registry = ServiceRegistry(group=None)
    assert registry.register(Echo) is Echo
    assert registry.register(Echo) is Echo

    def derived(**changes: Any) -> Any:
        return type("Other", (Echo,), changes)

    with pytest.raises(ValueError, match="an external service 'echo' already: Echo"):
        registry.register(derived())
    wrong: Mapping[str, Any] = {
        "must be set": derived(description=""),
        "must be like weather_api, got 'Echo 2'": derived(name="Echo 2"),
        r"operations\['say'\] must be an Operation": derived(name="a", operations={"say": {"type": "object"}}),
        "is no JSON Schema: 'objekt' is not valid": derived(
            name="b", operations={"say": Operation({"type": "objekt"})}
        ),
        "register the class, derived from ExternalService": Echo,
    }
    for words, service in wrong.items():
        with pytest.raises(TypeError, match=words):
            registry.register(service(ServiceResources(ExternalSettings())) if service is Echo else service)
    assert set(registry.services()) == {"echo"}
