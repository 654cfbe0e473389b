"""Whether the servers that a user names can be used: asked before anything is started."""

import asyncio
import re
from urllib.parse import urlsplit

import asyncpg

from workflow_service.ports import ServiceError

_BOUND = 5.0  # seconds for one server to answer
_DATABASES = ("postgresql", "postgres")
_BROKERS = ("redis", "rediss", "amqp", "amqps", "pyamqp", "safefs")
_PASSWORD_PARAMETER = re.compile(r"(?<=password=)[^&\s]*", re.IGNORECASE)
_HIDDEN = "***"


class UnusableServerError(ServiceError):
    """A setting names a server that cannot be used; the message says which, why and what to do, no password."""


async def check_database(url: str) -> None:
    """Log in to the PostgreSQL server that ``DATABASE_URL`` names.

    Raises:
        UnusableServerError: It is no such address, or the server did not let us in within 5 s.
    """
    try:
        _check_address(url, _DATABASES)
        async with asyncio.timeout(_BOUND):
            connection = await asyncpg.connect(url)
            await connection.close()
    except Exception as error:  # whatever asyncpg makes of an address or of a stranger behind it
        advice = "start that server or correct the address; unset, the service brings its own PostgreSQL"
        raise _unusable("DATABASE_URL", url, error, advice) from error


async def check_broker(url: str) -> None:
    """Log in to the broker that ``BROKER_URL`` names.

    Raises:
        UnusableServerError: The service works with no such broker, or it did not let us in within 5 s.
    """
    # Celery takes half a second to import, and who uses the embedded broker does not come here.
    from workflow_service.gateways.celery_queue import CeleryJobQueue

    try:
        _check_address(url, _BROKERS)
        queue = CeleryJobQueue(url)
        try:
            async with asyncio.timeout(_BOUND):
                await queue.check()
        finally:
            await queue.aclose()
    except Exception as error:  # whatever the broker's library makes of it
        advice = "start that broker or correct the address; unset, the service uses a folder of its home"
        raise _unusable("BROKER_URL", url, error.__cause__ or error, advice) from error


def without_password(url: str) -> str:
    """Return an address with ``***`` for its password, also when the address is malformed."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    # The last @: a password that should have been percent-encoded may hold another one.
    credentials, at, place = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    shown = f"{user}{colon}{_HIDDEN if colon else ''}{at}{place}"
    return _PASSWORD_PARAMETER.sub(_HIDDEN, f"{scheme}{separator}{shown}")


def _check_address(url: str, schemes: tuple[str, ...]) -> None:
    for one in url.split(";"):  # kombu takes several brokers, one for another's failure
        scheme, separator, _ = one.partition("://")
        if not separator or scheme not in schemes:
            raise ValueError(f"it must begin with one of {', '.join(f'{known}://' for known in schemes)}")
        try:
            _ = urlsplit(one).port
        except ValueError:
            # Not in urlsplit's words: what it takes for the port may be a part of the password.
            fault = "its port is no number up to 65535, or its password has signs that must be percent-encoded"
            raise ValueError(fault) from None


def _unusable(setting: str, url: str, error: BaseException, advice: str) -> UnusableServerError:
    reason = f"no answer within {_BOUND:.0f} s" if isinstance(error, TimeoutError) else str(error)
    reason = " ".join((reason or type(error).__name__).split())
    # A library that repeats the address repeats the password.
    reason = reason.replace(url, without_password(url))
    return UnusableServerError(f"{setting}={without_password(url)} cannot be used: {reason}; {advice}")
