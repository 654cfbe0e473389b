"""Settings, read from the environment. Nothing else in the service reads it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import unquote

from pydantic import BaseModel, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class OperationsSettings(BaseSettings):
    """How processes are run and what they tell of themselves; all of it has a default. Times are in seconds."""

    model_config = SettingsConfigDict(
        env_prefix="WORKFLOW_", populate_by_name=True, extra="ignore", use_attribute_docstrings=True
    )

    log_format: Literal["console", "json"] = "console"
    """Log lines for people, or one JSON object a line."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The lowest level that is logged."""

    log_users: Literal["pseudonym", "name"] = "pseudonym"
    """How log lines name users. A pseudonym is the same in all processes of one database."""

    api_host: str = "127.0.0.1"
    """The address that `workflow-service api` listens on."""

    api_port: Annotated[int, Field(ge=0, le=65535)] = 8321
    """The port that `workflow-service api` listens on."""

    api_workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that `workflow-service api` answers with."""

    api_drain: Annotated[int, Field(ge=1)] = 10
    """How long an API that is told to stop waits for open requests; event streams are ended then."""

    forwarded_allow_ips: str = "127.0.0.1"
    """Addresses of proxies, separated by commas, whose word on the client's address is taken."""

    worker_pool: Literal["asyncio", "threads", "prefork", "solo", "gevent", "eventlet"] = "threads"
    """Celery's pool that `workflow-service worker` runs on; `asyncio` is homeloop's."""

    worker_concurrency: Annotated[int, Field(ge=1, le=10_000)] = 8
    """Runs a worker does at the same time."""

    worker_max_runs: Annotated[int, Field(ge=0)] = 0
    """After so many runs a process of the prefork pool is replaced by a new one; 0 is never."""

    worker_grace: Annotated[float, Field(ge=0)] = 20.0
    """How long a worker that is told to stop lets its runs go on; then it gives them back, and others go on."""

    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """The port that a worker tells its figures on, at ``/metrics``; 0 is none. The API has them on its own."""

    metrics_host: str = "127.0.0.1"
    """The address for ``metrics_port``."""

    health_interval: Annotated[float, Field(gt=0)] = 15.0
    """How often each process assesses its event loops."""


class Settings(OperationsSettings):
    """Where the servers are and how much is allowed. Times are in seconds."""

    database_url: Annotated[str, Field(alias="DATABASE_URL")]
    """PostgreSQL, as libpq and asyncpg both read it: ``postgresql://user:password@host:port/name``."""

    broker_url: Annotated[str, Field(alias="BROKER_URL")]
    """Redis, RabbitMQ, or ``safefs://<folder>``: the file broker that ``workflow-service up`` uses by default."""

    api_keys: Annotated[dict[str, SecretStr], Field(default_factory=dict)]
    """User name to key, as JSON: ``{"alice": "a long random string"}``."""

    database_pool_size: Annotated[int, Field(ge=1, le=100)] = 5
    """Connections a process may open for queries."""

    checkpoint_pool_size: Annotated[int, Field(ge=1, le=100)] = 3
    """Connections a worker process may open for checkpoints."""

    run_lease: Annotated[float, Field(gt=0)] = 10.0
    """A worker that has said nothing for this long has lost its run."""

    reap_interval: Annotated[float, Field(gt=0)] = 2.0
    """How often the API looks for runs that dead workers left."""

    max_upload_bytes: Annotated[int, Field(ge=1)] = 20 * 1024 * 1024
    """The largest file that can be uploaded."""

    parse_timeout: Annotated[float, Field(gt=0)] = 60.0
    """Time a document may take to become text."""

    parse_memory_bytes: Annotated[int, Field(ge=64 * 1024 * 1024)] = 1024 * 1024 * 1024
    """Address space of the process that reads a document."""

    samples: Path = Path(__file__).parent / "samples"
    """The contracts that ship with the service."""

    @classmethod
    def from_environment(cls) -> Self:
        """Read the settings.

        Raises:
            pydantic.ValidationError: A variable is missing or has no sense; the error names it.
        """
        return cls()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue] - the environment has them

    @property
    def pseudonym_key(self) -> str | None:
        """What users' pseudonyms in logs are made with, the same for all processes of a database; None: none."""
        return None if self.log_users == "name" else self.database_url.rpartition("@")[2]

    def secrets(self) -> frozenset[str]:
        """Return every key and password that is set, so that logs can mask them."""
        return frozenset(filter(None, _secrets(self)))


def _secrets(value: object) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _secrets(item)
    elif isinstance(value, str) and "://" in value:
        credentials, at, _ = value.partition("://")[2].rpartition("@")
        password = credentials.partition(":")[2] if at else ""
        yield password
        yield unquote(password)
