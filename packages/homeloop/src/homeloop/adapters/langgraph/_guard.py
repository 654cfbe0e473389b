"""Refuse LangGraph's asynchronous savers and stores on any loop but their own. Tested with LangGraph 1.2."""

import asyncio
from typing import Any, TypeVar, cast

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.store.base.batch import AsyncBatchedBaseStore

import homeloop
from homeloop import LoopGuard

T = TypeVar("T")

_SAVER = LoopGuard(coroutines=True, loop="loop")
_STORE = LoopGuard(coroutines=True, loop="_loop")


def guard(value: T, loop: asyncio.AbstractEventLoop) -> T:
    """
    Guard a saver or a store that keeps its loop, and its connection or pool, which must live there too.

    Their synchronous methods bring the work to the loop themselves, so they may be called elsewhere.

    Raises:
        WrongLoopError: It or its connection belongs to another loop.
    """
    if issubclass(type(value), AsyncBatchedBaseStore):
        kept = _STORE
    elif issubclass(type(value), BaseCheckpointSaver) and hasattr(value, "loop"):
        kept = _SAVER
    else:
        return value
    connection = getattr(cast("Any", value), "conn", None)
    if connection is not None:
        homeloop.guard(connection, loop)
    return kept(value, loop)
