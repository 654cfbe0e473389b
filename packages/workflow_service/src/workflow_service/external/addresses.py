"""Which addresses the service may connect to: checked where a connection is made, for services and webhooks."""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import cache
from typing import TypeAlias

import httpx

LookUp: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_DEFAULT_PORTS = {"http": 80, "https": 443}
_ALSO_RESERVED = tuple(
    map(
        ipaddress.ip_network,
        ("192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48", "100::/64", "3fff::/20", "5f00::/16"),
    )
)
"""Not public by IANA's registries; the tables of some Pythons that we support do not know it."""

_CONNECT_TIMEOUT = 5.0  # seconds, for a request that brings no bound of its own


class ForbiddenAddressError(httpx.ConnectError):
    """A host is at an address that the service must not connect to. Nothing was sent."""


async def look_up(host: str, port: int) -> Sequence[str]:
    """Return the addresses of ``host`` that the system's resolver knows, in its order.

    Raises:
        OSError, UnicodeError: It knows none.

    Cancellation: returns at once. A thread of the running loop's executor that waits for the resolver goes on
    waiting, and the resolver may be an attacker's: see `AddressPolicy`.
    """
    answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(answer[4][0]) for answer in answers]


class AddressPolicy:
    """Says which addresses of a host may be connected to: public ones, and what is allowed by configuration."""

    def __init__(self, private_hosts: Collection[str] = (), look_up: LookUp = look_up) -> None:
        """Allow public addresses, and these hosts and networks whatever their addresses are.

        ``look_up(host, port)`` asks the resolver, as the function of that name does, on the running loop's
        executor. In a process that serves others give one that has threads of its own: a name whose servers never
        answer holds a thread for as long as the resolver is patient, which is some tens of seconds.

        Raises:
            ValueError: An entry is neither a host name nor a network.
        """
        self._look_up = look_up
        self._networks = []
        self._hosts = set()
        for entry in private_hosts:
            try:
                self._networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                if "/" in entry or not entry or entry != entry.strip():
                    raise ValueError(f"{entry!r} is neither a host name nor a network") from None
                self._hosts.add(entry.lower().rstrip("."))

    def allows_host(self, host: str) -> bool:
        """Return whether ``host``, a name or an address, is allowed by configuration."""
        host = host.lower().rstrip(".")
        address = _parse(host)
        return host in self._hosts or (address is not None and self._is_in_networks(address))

    def allows_address(self, address: Address) -> bool:
        """Return whether an address may be connected to: it is public, or allowed by configuration."""
        return self._is_in_networks(address) or _is_public(address)

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of ``host`` that may be connected to, in the resolver's order.

        Raises:
            ForbiddenAddressError: One of them is private, loopback, link-local or otherwise not public. A name
                that mixes such with public ones is refused as a whole: its owner may be up to something.
            httpx.ConnectError: The host has no address.

        Cancellation: returns at once; the resolver's thread ends by itself.
        """
        literal = _parse(host)
        try:
            found = [literal] if literal else [*map(ipaddress.ip_address, await self._look_up(host, port))]
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"{host} has no address: {error}") from error
        if host.lower().rstrip(".") not in self._hosts:
            for address in found:
                if not self.allows_address(address):
                    raise ForbiddenAddressError(
                        f"{host} is at {address}, which is not public; if this is meant, "
                        f"name it in WORKFLOW_PRIVATE_HOSTS"
                    )
        return [str(address) for address in dict.fromkeys(found)]

    def _is_in_networks(self, address: Address) -> bool:
        inner = _unwrap(address)
        return any(inner in network or address in network for network in self._networks)


def _parse(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _unwrap(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address carries, if it does: the packet ends up there."""
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address
    return address


def _is_public(address: Address) -> bool:
    inner = _unwrap(address)
    is_site_local = isinstance(inner, ipaddress.IPv6Address) and inner.is_site_local
    is_reserved = inner.is_reserved or is_site_local or any(inner in network for network in _ALSO_RESERVED)
    return inner.is_global and not (inner.is_multicast or is_reserved)


@cache
def shared_tls() -> ssl.SSLContext:
    """Return the process's TLS context for clients: making one takes 20 ms, and no loop owns it."""
    return ssl.create_default_context()


class GuardedTransport(httpx.AsyncBaseTransport):
    """Connects to checked addresses only, and to exactly those that were checked.

    The request goes to the address, with the name in Host and in TLS (certificates are checked for it): a name
    that changes its address between check and connection gains nothing. Connections that are kept belong to an
    address, so a client that talks to hosts of different owners must keep none.
    """

    def __init__(self, policy: AddressPolicy, *, keep: int = 10) -> None:
        """Guard connections by ``policy``; keep at most ``keep`` of them open between requests."""
        self._policy = policy
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=keep, keepalive_expiry=5.0)
        self._inner = httpx.AsyncHTTPTransport(verify=shared_tls(), trust_env=False, limits=limits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request.

        Raises:
            ForbiddenAddressError: The host is at an address that must not be connected to. Nothing was sent.
        """
        host = request.url.raw_host.decode("ascii")
        port = request.url.port or _DEFAULT_PORTS[request.url.scheme]
        bound = request.extensions.get("timeout", {}).get("connect") or _CONNECT_TIMEOUT
        try:
            async with asyncio.timeout(bound):
                addresses = await self._policy.resolve(host, port)
        except TimeoutError as error:
            raise httpx.ConnectTimeout(
                f"{host} was not resolved within {bound:g} s: the name servers do not answer"
            ) from error
        last = len(addresses) - 1
        for position, address in enumerate(addresses):
            try:
                return await self._inner.handle_async_request(_pinned(request, host, address))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if position == last:
                    raise
        raise httpx.ConnectError(f"{host} has no address")

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()


def _pinned(request: httpx.Request, host: str, address: str) -> httpx.Request:
    """Return the request, addressed to ``address``; its Host header has the name already, TLS gets it here."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": host},
    )
