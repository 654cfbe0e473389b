"""Async code for hosts that call sync functions: model servers, thread pools, notebooks, cells and endpoints."""

from homeloop.serving._executor import AsyncExecutor
from homeloop.serving._retry import Retry

__all__ = ("AsyncExecutor", "Retry")
