"""Which of kombu's transports are replaced in a worker with the asyncio pool."""

# pyright: basic
# (kombu ships no types: strict mode would complain of every value that comes from it.)

import kombu
from celery.utils.log import get_logger
from kombu import transport

logger = get_logger(__name__)

KNOWN = ("5.5", "5.6", "5.7")
"""The versions of kombu whose Redis transport ours was tested with."""

_STOCK = "kombu.transport.redis:Transport"
_OURS = "homeloop.adapters.celery.pool._redis_transport:Transport"  # by name, as not everybody has redis


def receive_many() -> None:
    """
    Put our Redis transport in the place of kombu's, for connections that are made from now on in this process.

    One that somebody else has put there stays. A kombu that is not known keeps its own; a warning says so.
    """
    version = ".".join(kombu.__version__.split(".")[:2])
    if version not in KNOWN:
        logger.warning(
            "messages are received and acknowledged one by one, as kombu %s is not known (%s are); "
            "upgrade homeloop, or set homeloop_pool_batches = False to have it so without this warning",
            kombu.__version__,
            ", ".join(KNOWN),
        )
        return
    for alias in ("redis", "rediss"):
        if transport.TRANSPORT_ALIASES.get(alias) == _STOCK:
            transport.TRANSPORT_ALIASES[alias] = _OURS
            transport._transport_cache.pop(alias, None)  # asked first
