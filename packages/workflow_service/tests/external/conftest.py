"""The providers' server, and what services share in a process."""

import asyncio
import gc
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import psutil
import pytest

from workflow_service.external import ServiceResources
from workflow_service.settings import ExternalSettings, ServiceSettings
from workflow_service.testing.providers import ProviderServer, environment

T = TypeVar("T")
BOUND = 30.0  # seconds for a scenario


@pytest.fixture(scope="session")
def _running_providers() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture
def providers(_running_providers: ProviderServer) -> Iterator[ProviderServer]:
    """The server in the providers' formats, with nothing to do but answer."""
    script = _running_providers.script
    script.reset()
    yield _running_providers
    script.reset()


@pytest.fixture
def make_settings(providers: ProviderServer) -> Callable[..., ExternalSettings]:
    """Make settings that lead both services to the server; keyword arguments hold for each of them."""

    def make(**settings: Any) -> ExternalSettings:
        places = environment(providers.address)
        chosen = {"api_key": "test-key", "retry_wait": 0.0, "rate_limit": 1000, **settings}
        return ExternalSettings(
            services={
                name: ServiceSettings(
                    **{"base_url": places[f"WORKFLOW_SERVICES__{name.upper()}__BASE_URL"], **chosen}
                )
                for name in ("weatherapi", "google_places")
            },
            private_hosts=("127.0.0.1",),
        )

    return make


@pytest.fixture
def resources(make_settings: Callable[..., ExternalSettings]) -> ServiceResources:
    """What services share, without a cache."""
    return ServiceResources(make_settings())


@pytest.fixture
def run() -> Callable[[Callable[[], Awaitable[T]]], T]:
    """Run ``scenario()`` on a loop of its own, bounded; afterwards no task, socket or thread of it is left."""

    def run_bounded(scenario: Callable[[], Awaitable[T]]) -> T:
        async def main() -> T:
            async with asyncio.timeout(BOUND):
                result = await scenario()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, left
            return result

        result = asyncio.run(main())
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("asyncio")]
        return result

    return run_bounded


@pytest.fixture
def open_sockets() -> Callable[[int], int]:
    """Count this process's connections to a port."""

    def count(port: int) -> int:
        gc.collect()
        connections = psutil.Process().net_connections("tcp")
        return len([each for each in connections if each.raddr and each.raddr.port == port])

    return count


@pytest.fixture
def unused_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
