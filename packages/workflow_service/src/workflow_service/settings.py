"""Settings, read from the environment. Nothing else in the service reads it."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where the servers are and how much is allowed. Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="WORKFLOW_", populate_by_name=True, extra="ignore")

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

    resumable_for: Annotated[float, Field(ge=0)] = 7 * 24 * 3600.0
    """How long a run that failed, was cancelled or is dead can be resumed; then its checkpoints are removed."""

    reap_interval: Annotated[float, Field(gt=0)] = 2.0
    """How often the API looks for runs that dead workers left."""

    max_upload_bytes: Annotated[int, Field(ge=1)] = 20 * 1024 * 1024

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
