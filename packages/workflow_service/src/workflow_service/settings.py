"""Settings, read from the environment. Nothing else in the service reads it."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseModel):
    """What is set for one external service: ``WORKFLOW_SERVICES__<NAME>__API_KEY``… Times are in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    api_key: SecretStr | None = None

    base_url: Annotated[str, Field(pattern=r"^https?://[^/?#]+(/[^?#]*)?$")] | None = None
    """Where the service is, instead of at its provider's."""

    timeout: Annotated[float, Field(gt=0)] = 30.0
    """For a call with all its attempts and pauses."""

    attempt_timeout: Annotated[float, Field(gt=0)] = 10.0
    """For one attempt."""

    attempts: Annotated[int, Field(ge=1, le=20)] = 3
    """So often a call is tried at most; only what may be tried again is."""

    retry_wait: Annotated[float, Field(ge=0)] = 0.2
    """The first pause between attempts; it doubles each time. What Retry-After asks for goes before."""

    rate_limit: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Requests a process may send in ``rate_period``; more of them wait."""

    rate_period: Annotated[float, Field(gt=0)] = 1.0

    failures_to_open: Annotated[int, Field(ge=1)] = 5
    """After so many failures in a row the service is left alone for ``cooldown``; calls fail at once meanwhile."""

    cooldown: Annotated[float, Field(gt=0)] = 30.0

    max_response_bytes: Annotated[int, Field(ge=1)] = 5 * 1024 * 1024

    options: dict[str, str] = Field(default_factory=dict)
    """What else a plug-in wants to know: its documentation says."""


class ExternalSettings(BaseSettings):
    """What is set for external services; all of it has a default."""

    model_config = SettingsConfigDict(
        env_prefix="WORKFLOW_", env_nested_delimiter="__", populate_by_name=True, extra="ignore"
    )

    services: dict[str, ServiceSettings] = Field(default_factory=dict)
    """By the name of the service."""

    private_hosts: tuple[str, ...] = ()
    """Hosts and networks that services and webhooks may reach although they are private, as JSON:
    ``["127.0.0.1", "10.0.0.0/8", "hooks.internal"]``. All others are refused when connecting."""

    webhook_secrets: tuple[Annotated[SecretStr, Field(min_length=24)], ...] = ()
    """What each user's secret for webhooks is made of, as JSON: ``["a long random string"]``. Without one there
    are no webhooks. To change it put the new one first; remove the old one when all receivers know the new one."""

    webhook_timeout: Annotated[float, Field(gt=0)] = 15.0
    """For one attempt to deliver a webhook."""

    webhook_attempts: Annotated[int, Field(ge=1, le=100)] = 10
    """After so many a webhook is given up; the pauses between them grow from 5 s to 20 h."""

    service_cache_entries: Annotated[int, Field(ge=1)] = 1000
    """Answers of external services kept for one user; the oldest go first."""

    @classmethod
    def from_environment(cls) -> Self:
        """Read the settings.

        Raises:
            pydantic.ValidationError: A variable is missing or has no sense; the error names it.
        """
        return cls()


class Settings(ExternalSettings):
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

    parse_timeout: Annotated[float, Field(gt=0)] = 60.0
    """Time a document may take to become text."""

    parse_memory_bytes: Annotated[int, Field(ge=64 * 1024 * 1024)] = 1024 * 1024 * 1024
    """Address space of the process that reads a document."""

    samples: Path = Path(__file__).parent / "samples"
    """The contracts that ship with the service."""
