"""Refuse httpx clients on any loop but their own. Tested with httpx 0.28 and httpx2 2.16."""

import asyncio
from typing import Any, TypeVar

from homeloop import LoopGuard

T = TypeVar("T")

__all__ = ("guard",)

_RESPONSE = LoopGuard(coroutines=True)


def _guard_response(response: Any, loop: asyncio.AbstractEventLoop) -> Any:
    """Guard a response that is still to be read; one that was read is plain data."""
    return response if response.is_closed else _RESPONSE(response, loop)


# Every request of a client goes through send().
_CLIENT = LoopGuard("send", "aclose", "__aenter__", "__aexit__", results={"send": _guard_response})


def guard(value: T, loop: asyncio.AbstractEventLoop) -> T:
    """
    Guard a client and the responses that it streams.

    Raises:
        WrongLoopError: It belongs to another loop.
    """
    # A shape, not a class: the product has been forked.
    return _CLIENT(value, loop) if hasattr(value, "send") and hasattr(value, "aclose") else value
