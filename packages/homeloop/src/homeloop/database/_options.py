"""What a configuration of database pools says, and whether that makes sense."""

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import asyncpg

from homeloop import User

Mode: TypeAlias = Literal["shared", "per_user"]


@dataclass(frozen=True, slots=True)
class Options:
    """What `ConnectionPoolManager.configure` was told; it says what each means."""

    dsn: str | None
    service_dsn: str | None
    mode: Mode
    user_settings: Callable[[User], Mapping[str, str]]
    min_size: int
    max_size: int
    user_max_size: int
    max_user_pools: int
    max_user_pool_idle: float
    acquire_timeout: float | None
    close_timeout: float
    pooler: Literal["session"] | None
    pool_options: Mapping[str, Any]  # Any: whatever create_pool takes

    def user_dsn(self) -> str | None:
        """Return the address of users' connections, if anybody said it."""
        return self.dsn or os.environ.get("DATABASE_URL")

    def service_address(self) -> str | None:
        """Return the address of the service's connections, if anybody said it."""
        return self.service_dsn or os.environ.get("SERVICE_DATABASE_URL")

    def check(self) -> None:
        """
        Look whether they make sense, as far as that can be told before anything opens.

        Raises:
            ValueError: One does not.
        """
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode is one of {get_args(Mode)}, not {self.mode!r}")
        if self.pooler not in (None, "session"):
            raise ValueError(f"pooler is None or 'session', not {self.pooler!r}")
        if not callable(self.user_settings):
            raise ValueError(f"user_settings is a function of a User, not {self.user_settings!r}")
        for name, least in _LEAST.items():
            number = getattr(self, name)
            if not isinstance(number, int) or number < least:
                raise ValueError(f"{name} is at least {least}, and whole, not {number!r}")
        if self.min_size > self.max_size:
            raise ValueError(f"min_size is at most max_size={self.max_size}, not {self.min_size}")
        for name in ("max_user_pool_idle", "acquire_timeout", "close_timeout"):
            seconds: float | None = getattr(self, name)
            if seconds is None and name == "acquire_timeout":
                continue
            if seconds is None or not seconds > 0:  # not a number is not above 0 either
                raise ValueError(f"{name} is in seconds and above 0, not {seconds!r}")
        if "reset" in self.pool_options:
            raise ValueError("reset cannot be set: it is what keeps users apart")
        if "connect" not in self.pool_options:  # else it knows what it takes
            unknown = sorted(set(self.pool_options) - _known())
            if unknown:
                raise ValueError(f"asyncpg.create_pool takes no {', '.join(unknown)}")


_LEAST = {"min_size": 0, "max_size": 1, "user_max_size": 1, "max_user_pools": 1}


def _known() -> set[str]:
    taken = {*inspect.signature(asyncpg.create_pool).parameters, *inspect.signature(asyncpg.connect).parameters}
    return taken - {"dsn", "loop", "connect_kwargs"}
