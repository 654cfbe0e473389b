"""Which addresses are connected to, and that it is those that were checked."""

import datetime as dt
import ipaddress
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from workflow_service.external import ServiceResources, WeatherApi
from workflow_service.external.addresses import (
    AddressPolicy,
    ForbiddenAddressError,
    GuardedTransport,
    shared_tls,
)
from workflow_service.settings import ExternalSettings
from workflow_service.testing.providers import ProviderServer, Script, create_app

Run = Callable[[Callable[[], Awaitable[Any]]], Any]
Names = dict[str, list[list[str]]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """What the resolver says: for each name the answers, one for each time it is asked; the last one stays."""
    known: Names = {}

    def getaddrinfo(host: str, port: int, *_args: Any, **_options: Any) -> list[Any]:
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        addresses = known[host].pop(0) if len(known[host]) > 1 else known[host][0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


PRIVATE = [
    *(
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
    ),
    *(
        "100.64.0.1",
        "192.0.0.8",
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "240.0.0.1",
    ),
    *("255.255.255.255", "::", "::1", "fe80::1", "fec0::1", "fc00::1", "fd12:3456::1", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1", "2002:a00:1::"),
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",  # Teredo of 10.0.0.1
]
PUBLIC = ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public_are_refused(address: str, run: Run, names: Names) -> None:
    """As a literal, and behind a name."""
    names["inside.example"] = [[address]]

    async def scenario() -> None:
        for host in (address, "inside.example"):
            with pytest.raises(ForbiddenAddressError, match=r"is not public; .* WORKFLOW_PRIVATE_HOSTS"):
                await AddressPolicy().resolve(host, 80)

    run(scenario)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_taken(address: str, run: Run, names: Names) -> None:
    """As they are."""
    names["outside.example"] = [[address]]

    async def scenario() -> None:
        expected = [str(ipaddress.ip_address(address))]
        assert await AddressPolicy().resolve(address, 443) == expected
        assert await AddressPolicy().resolve("outside.example", 443) == expected

    run(scenario)


def test_a_name_with_public_and_private_addresses_is_refused(run: Run, names: Names) -> None:
    """As a whole: which of them is taken must not decide."""
    names["mixed.example"] = [["8.8.8.8", "10.0.0.1"]]

    async def scenario() -> None:
        with pytest.raises(ForbiddenAddressError, match=r"mixed\.example is at 10\.0\.0\.1"):
            await AddressPolicy(["192.168.0.0/16"]).resolve("mixed.example", 80)
        with pytest.raises(httpx.ConnectError, match=r"unknown\.example has no address"):
            await AddressPolicy().resolve("unknown.example", 80)

    run(scenario)


def test_what_is_allowed_by_configuration(run: Run, names: Names) -> None:
    """Networks by address, hosts by name whatever their address is."""
    names["HOOKS.internal"] = [["10.9.9.9"]]
    names["other.internal"] = [["10.9.9.9"]]
    policy = AddressPolicy(["127.0.0.0/8", "::1", "Hooks.Internal."])

    async def scenario() -> None:
        assert await policy.resolve("127.5.5.5", 80) == ["127.5.5.5"]
        (mapped,) = await policy.resolve("::ffff:127.0.0.1", 80)  # Python 3.13 writes it in another form
        assert ipaddress.ip_address(mapped) == ipaddress.ip_address("::ffff:7f00:1")
        assert await policy.resolve("::1", 80) == ["::1"]
        assert await policy.resolve("HOOKS.internal", 80) == ["10.9.9.9"]
        with pytest.raises(ForbiddenAddressError):
            await policy.resolve("other.internal", 80)

    run(scenario)
    assert policy.allows_host("hooks.internal.")
    assert policy.allows_host("127.9.9.9")
    assert not policy.allows_host("other.internal")
    for wrong in ("10.0.0.0/33", "", " host"):
        with pytest.raises(ValueError, match="neither a host name nor a network"):
            AddressPolicy([wrong])


def test_the_connection_goes_to_the_address_that_was_checked(
    run: Run, names: Names, providers: ProviderServer, unused_port: int
) -> None:
    """A name that changes its address after the check gains nothing; the provider sees the name."""
    port = urlsplit(providers.address).port
    names["provider.test"] = [["127.0.0.1"], ["169.254.169.254"]]

    async def scenario() -> None:
        transport = GuardedTransport(AddressPolicy(["127.0.0.0/8"]))
        async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
            url = f"http://provider.test:{port}/control"
            answer = await client.get(url)
            assert answer.status_code == 200
            assert str(answer.request.url) == url
            assert answer.request.headers["Host"] == f"provider.test:{port}"
            with pytest.raises(ForbiddenAddressError):
                await client.get(url)
            names["two.test"] = [["127.0.0.2", "127.0.0.1"]]
            answer = await client.get(f"http://two.test:{port}/control")
            assert answer.status_code == 200, "of two addresses one answers"
            with pytest.raises(httpx.ConnectError):
                await client.get(f"http://two.test:{unused_port}/control")

    run(scenario)


def test_a_service_at_a_private_address_is_refused(
    run: Run, make_settings: Callable[..., ExternalSettings], providers: ProviderServer
) -> None:
    """Unless configuration names it; the answer says so, and it is not tried again."""
    settings = make_settings().model_copy(update={"private_hosts": ()})

    async def scenario() -> None:
        async with WeatherApi(ServiceResources(settings)) as service:
            answer = await service.call("current", {"q": "Berlin"}, "alice")
        assert answer.metadata["code"] == "forbidden-address"
        assert answer.metadata["attempts"] == 1
        assert "name it in WORKFLOW_PRIVATE_HOSTS" in str(answer.error)

    run(scenario)
    assert not providers.script.calls


@pytest.fixture
def tls_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server with a certificate for provider.test, whose authority is trusted while the test runs."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "provider.test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("provider.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    bundle = tmp_path / "provider.pem"
    bundle.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    shared_tls.cache_clear()
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(Script()), log_config=None, lifespan="off", ssl_certfile=str(bundle))
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(30)
    listener.close()
    shared_tls.cache_clear()


def test_certificates_are_checked_for_the_name(run: Run, names: Names, tls_port: int) -> None:
    """The connection goes to an address, the certificate is asked for the name."""
    names["provider.test"] = names["other.test"] = [["127.0.0.1"]]

    async def scenario() -> Mapping[str, Any]:
        transport = GuardedTransport(AddressPolicy(["127.0.0.1"]), keep=0)
        async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
            with pytest.raises(httpx.ConnectError, match=r"CERTIFICATE_VERIFY_FAILED.*other\.test"):
                await client.get(f"https://other.test:{tls_port}/control")
            answer = await client.get(f"https://provider.test:{tls_port}/control")
            answer.raise_for_status()
            return dict(answer.json())

    assert run(scenario)["calls"] == {}
    assert shared_tls() is shared_tls()
    assert shared_tls().verify_mode is ssl.CERT_REQUIRED
