"""Settings, read from the environment. Nothing else in the service reads it."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

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

    reap_interval: Annotated[float, Field(gt=0)] = 2.0
    """How often the API looks for runs that dead workers left."""

    max_upload_bytes: Annotated[int, Field(ge=1)] = 20 * 1024 * 1024

    parse_timeout: Annotated[float, Field(gt=0)] = 60.0
    """Time a document may take to become text."""

    parse_memory_bytes: Annotated[int, Field(ge=64 * 1024 * 1024)] = 1024 * 1024 * 1024
    """Address space of the process that reads a document."""

    model: Annotated[str | None, Field(pattern=r"^[a-z0-9_]+:\S+$")] = None
    """The language model, as LangChain names it: ``provider:model``, ``openai:gpt-5.5``. None: there is none."""

    model_key: SecretStr | None = None
    """Its provider's key; without one, the variable that the provider's own library reads counts."""

    model_base_url: str | None = None
    """Where the provider answers, if not at its usual address: ``http://127.0.0.1:8089/v1``."""

    model_temperature: Annotated[float | None, Field(ge=0, le=2)] = 0.0
    """None (``null``) leaves it to the provider: some models refuse to be told."""

    model_max_tokens: Annotated[int, Field(ge=1)] = 4096
    """Tokens an answer may have."""

    model_timeout: Annotated[float, Field(gt=0)] = 60.0
    """Time one call may take."""

    model_attempts: Annotated[int, Field(ge=1, le=20)] = 4
    """Calls for one answer while the provider is overloaded or away."""

    model_concurrency: Annotated[int, Field(ge=1, le=1000)] = 4
    """Calls at the same time on one loop: a worker process has one, and one more for each isolated run."""

    model_requests_per_minute: Annotated[float | None, Field(gt=0)] = None
    """Calls a process may begin in a minute; None: as many as it likes."""

    model_input_price: Annotated[float | None, Field(ge=0)] = None
    model_output_price: Annotated[float | None, Field(ge=0)] = None
    """US dollars for a million tokens; without both, usage is counted in tokens only."""

    model_structured_output: Literal["json_schema", "function_calling", "json_mode"] | None = None
    """How the model is made to answer in a schema; None: the best way that the provider takes."""

    model_options: Annotated[dict[str, Any], Field(default_factory=dict, repr=False)]
    """What else the provider's LangChain class takes, as JSON; it wins over the rest."""

    analysis_with_model: bool = False
    """Whether contract analyses ask the language model when their input does not say so."""

    analysis_window_chars: Annotated[int, Field(ge=1000, le=1_000_000)] = 12_000
    """Characters of a contract that the model reads at a time."""

    analysis_most_windows: Annotated[int, Field(ge=1, le=10_000)] = 40
    """Windows of one contract that the model reads; the rest is read by rules only, and the result says so."""

    samples: Path = Path(__file__).parent / "samples"
    """The contracts that ship with the service."""

    @classmethod
    def from_environment(cls) -> Self:
        """Read the settings.

        Raises:
            pydantic.ValidationError: A variable is missing or has no sense; the error names it.
        """
        return cls()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue] - the environment has them
