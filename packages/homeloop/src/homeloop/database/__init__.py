"""Connections to PostgreSQL, each on its own loop: for a user, whose rows alone it sees, and for the service."""

from homeloop.database._connections import (
    ensure_async_pool_initialization,
    get_service_connection,
    get_user_connection,
)
from homeloop.database._manager import ConnectionPoolManager
from homeloop.database._pools import LoopMetrics, PoolMetrics
from homeloop.database._sessions import Connection

__all__ = (
    "Connection",
    "ConnectionPoolManager",
    "LoopMetrics",
    "PoolMetrics",
    "ensure_async_pool_initialization",
    "get_service_connection",
    "get_user_connection",
)
