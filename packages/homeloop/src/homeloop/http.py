"""HTTP clients, one per loop, that all share one TLS context."""

import ssl
from collections.abc import Callable
from functools import cache, partial
from typing import TypeVar, cast

from homeloop import LoopLocal

__all__ = ("loop_local_client", "shared_ssl_context")

C = TypeVar("C")


def shared_ssl_context(*, http2: bool = False) -> ssl.SSLContext:
    """
    Return the process's TLS context for clients: the system's certificate authorities, host names checked.

    It is made on first use. Reading the authorities takes about 20 ms, and a client that brings no
    context makes one of its own; a client that is given one costs about 0.1 ms. ``SSL_CERT_FILE``
    and ``SSL_CERT_DIR`` name other authorities, as OpenSSL has it.

    Args:
        http2: Return the one for clients that speak HTTP/2: a client sets the protocols it speaks
            on its context, so the two kinds must not share one.

    Thread: any; no loop owns a context.
    """
    return _made_once(http2)


@cache
def _made_once(http2: bool) -> ssl.SSLContext:
    return ssl.create_default_context()


def loop_local_client(
    factory: Callable[[ssl.SSLContext], C],
    *,
    http2: bool = False,
    name: str | None = None,
    close_timeout: float = 5.0,
) -> LoopLocal[C]:
    """
    Give every loop a client of its own: ``async with clients() as client``.

    The client is made on a loop's first use and closed on that loop before it ends; inside
    `homeloop.resource_scope` it is the scope's, and closed at its end, however that comes.

    Args:
        factory: Makes a client with the TLS context it is given, for instance
            ``lambda tls: httpx.AsyncClient(verify=tls)``.
        http2: See `shared_ssl_context`.
        name: For logs and errors; the factory's name by default.
        close_timeout: Seconds that closing may take, waiting for leases included.

    Raises:
        ValueError: ``close_timeout`` is not above 0.
        TypeError: The factory is no function: the usual slip is to pass the client.
    """
    if not callable(factory):
        raise TypeError(f"pass the function that makes the client, not the client: {factory!r}")

    def make() -> C:
        return factory(shared_ssl_context(http2=http2))

    named: object = factory
    while isinstance(named, partial):
        named = cast("partial[C]", named).func
    return LoopLocal(make, name=name or getattr(named, "__qualname__", None), close_timeout=close_timeout)
