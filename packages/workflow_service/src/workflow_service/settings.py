"""Settings, read from the environment. Nothing else in the service reads it."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias
from urllib.parse import unquote

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

JwtAlgorithm: TypeAlias = Literal[
    "HS256",
    "HS384",
    "HS512",
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
]


_SHORTEST_SILENCE = 5.0  # seconds: some beats, of which a busy machine may miss one


def _check_silence(seconds: float) -> float:
    if 0 < seconds < _SHORTEST_SILENCE:
        raise ValueError(f"must be 0 or at least {_SHORTEST_SILENCE:g}: one that is well shows it each second")
    return seconds


class OperationsSettings(BaseSettings):
    """How processes are run and what they tell of themselves; all of it has a default. Times are in seconds."""

    model_config = SettingsConfigDict(
        env_prefix="WORKFLOW_",
        env_ignore_empty=True,  # «WORKFLOW_MODEL=» in a file unsets it
        allow_inf_nan=False,
        populate_by_name=True,
        extra="ignore",
        use_attribute_docstrings=True,
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

    worker_pulse: Path | None = None
    """A file that a worker touches once a second while it can work, for a liveness probe; each has its own."""

    worker_silence: Annotated[float, Field(ge=0), AfterValidator(_check_silence)] = 30.0
    """How long the worker of `workflow-service up` may be frozen; then another one replaces it. From 5 s; 0: for
    ever."""

    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """The port that a worker tells its figures on, at ``/metrics``; 0 is none. The API has them on its own."""

    metrics_host: str = "127.0.0.1"
    """The address for ``metrics_port``."""

    health_interval: Annotated[float, Field(gt=0)] = 15.0
    """How often each process assesses its event loops."""


def _check_address(url: str) -> str:
    """Refuse an address that libraries would quote when they cannot read it, with a part of its password."""
    for one in url.split(";"):
        place = re.split(r"[/?#]", one.partition("://")[2], maxsplit=1)[0].rpartition("@")[2]
        for host in place.split(","):
            port = host.rpartition("]")[2].partition(":")[2]
            if port and not (port.isascii() and port.isdecimal() and int(port) < 65536):
                raise ValueError(
                    "has a port that is no number up to 65535, or a password whose signs must be percent-encoded"
                )
    return url


def _check_database(url: str) -> str:
    if not url.startswith(("postgresql://", "postgres://")):
        raise ValueError("must begin with postgresql://")
    return url


def _check_broker(url: str) -> str:
    if not all(re.match(r"[a-z][a-z0-9+.-]*://", one) for one in url.split(";")):
        raise ValueError("must begin with redis://, rediss://, amqp:// or amqps://")
    return url


Address: TypeAlias = Annotated[str, AfterValidator(_check_address)]


class ServiceSettings(BaseModel):
    """What is set for one external service: ``WORKFLOW_SERVICES__<NAME>__API_KEY``… Times are in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False)

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
        hide_input_in_errors=True,
        env_prefix="WORKFLOW_",
        env_ignore_empty=True,
        allow_inf_nan=False,
        env_nested_delimiter="__",
        populate_by_name=True,
        extra="ignore",
        use_attribute_docstrings=True,
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


class Settings(OperationsSettings, ExternalSettings):
    """Where the servers are and how much is allowed. Times are in seconds."""

    database_url: Annotated[Address, AfterValidator(_check_database), Field(alias="DATABASE_URL")]
    """PostgreSQL, as libpq and asyncpg both read it: ``postgresql://user:password@host:port/name``."""

    database_pooler: Literal["transaction"] | None = None
    """Set ``transaction`` if a pooler such as PgBouncer stands before ``DATABASE_URL``, one of sessions too."""

    database_direct_url: Annotated[Address, AfterValidator(_check_database)] | None = None
    """The same database past the pooler, for notifications, migrations and LangGraph's tables. Unset, it is
    ``DATABASE_URL``."""

    broker_url: Annotated[Address, AfterValidator(_check_broker), Field(alias="BROKER_URL")]
    """Redis, RabbitMQ, or ``safefs://<folder>``: the file broker that ``workflow-service up`` uses by default."""

    api_keys: Annotated[dict[str, SecretStr], Field(default_factory=dict)]
    """User name to key, as JSON: ``{"alice": "a long random string"}``. Others: ``keys create``."""

    jwt_algorithm: JwtAlgorithm | None = None
    """The one algorithm that tokens may be signed with. Unset, no token is accepted."""

    jwt_issuer: Annotated[str | None, Field(min_length=1)] = None
    """The ``iss`` that tokens must have."""

    jwt_audience: Annotated[str | None, Field(min_length=1)] = None
    """What must be among a token's ``aud``."""

    jwt_secret: SecretStr | None = None
    """For HS256, HS384, HS512: the secret that is shared with the issuer, at least as long as the hash."""

    jwt_public_key_file: Path | None = None
    """For the other algorithms: the issuer's public key, PEM."""

    jwt_jwks_file: Path | None = None
    """Or the issuer's keys as a JSON Web Key Set; read again when the file changes."""

    jwt_leeway: Annotated[float, Field(ge=0, le=300)] = 30.0
    """By how much the issuer's clock may differ."""

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
    """The largest file that can be uploaded."""

    parse_timeout: Annotated[float, Field(gt=0)] = 60.0
    """Time a document may take to become text."""

    parse_memory_bytes: Annotated[int, Field(ge=64 * 1024 * 1024)] = 1024 * 1024 * 1024
    """Address space of the process that reads a document."""

    definitions: Path | None = None
    """A folder with workflow definitions, beside those that ship. A file that is broken is named in the log."""

    model: Annotated[str | None, Field(pattern=r"^[a-z0-9_]+:\S+$")] = None
    """The language model, as LangChain names it: ``provider:model``, ``openai:gpt-5.5``. None: there is none."""

    model_key: SecretStr | None = None
    """Its provider's key; without one, the variable that the provider's own library reads counts."""

    model_base_url: str | None = None
    """Where the provider answers, if not at its usual address: ``http://127.0.0.1:8089/v1``."""

    model_temperature: Annotated[float, Field(ge=0, le=2)] | Literal["provider"] = 0.0
    """``provider`` leaves it to the provider: some models refuse to be told."""

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
    """US dollars for a million tokens that the model reads."""

    model_output_price: Annotated[float | None, Field(ge=0)] = None
    """US dollars for a million tokens that it writes; without both prices, usage is counted in tokens only."""

    model_structured_output: Literal["json_schema", "function_calling", "json_mode"] | None = None
    """How the model is made to answer in a schema; None: the best way that the provider takes."""

    model_options: SecretStr = SecretStr("{}")
    """What else the provider's LangChain class takes, as a JSON object. It wins over the rest, may hold keys."""

    analysis_with_model: bool = False
    """Whether contract analyses ask the language model when their input does not say so."""

    analysis_window_chars: Annotated[int, Field(ge=1000, le=1_000_000)] = 12_000
    """Characters of a contract that the model reads at a time."""

    analysis_most_windows: Annotated[int, Field(ge=1, le=10_000)] = 40
    """Windows of one contract that the model reads; the rest is read by rules only, and the result says so."""

    samples: Path = Path(__file__).parent / "samples"
    """The contracts that ship with the service."""

    @model_validator(mode="after")
    def _check_pooler(self) -> Self:
        if self.database_pooler is not None and self.database_direct_url is None:
            raise ValueError(
                "with WORKFLOW_DATABASE_POOLER, set WORKFLOW_DATABASE_DIRECT_URL too: a pooler of transactions "
                "passes no notifications on, so nobody would hear of a run's changes"
            )
        return self

    @model_validator(mode="after")
    def _check_tokens(self) -> Self:
        keys = {
            "WORKFLOW_JWT_SECRET": self.jwt_secret,
            "WORKFLOW_JWT_PUBLIC_KEY_FILE": self.jwt_public_key_file,
            "WORKFLOW_JWT_JWKS_FILE": self.jwt_jwks_file,
        }
        given = [name for name, value in keys.items() if value is not None]
        if self.jwt_algorithm is None:
            if given or self.jwt_issuer or self.jwt_audience:
                raise ValueError("for tokens, set WORKFLOW_JWT_ALGORITHM, for example to RS256")
            return self
        for name, value in (
            ("WORKFLOW_JWT_ISSUER", self.jwt_issuer),
            ("WORKFLOW_JWT_AUDIENCE", self.jwt_audience),
        ):
            if value is None:
                raise ValueError(f"set {name} too: a token of another issuer or for another service is no proof")
        is_shared = self.jwt_algorithm.startswith("HS")
        fitting = ["WORKFLOW_JWT_SECRET"] if is_shared else list(keys)[1:]
        if len(given) != 1 or given[0] not in fitting:
            found = ", ".join(given) or "none"
            raise ValueError(f"for {self.jwt_algorithm}, set one of {', '.join(fitting)}; set: {found}")
        shortest = int(self.jwt_algorithm[2:]) // 8 if is_shared else 0
        if self.jwt_secret is not None and len(self.jwt_secret.get_secret_value().encode()) < shortest:
            raise ValueError(f"WORKFLOW_JWT_SECRET must have at least {shortest} bytes for {self.jwt_algorithm}")
        return self

    @property
    def direct_url(self) -> str:
        """The database's own address, past a pooler if there is one."""
        return self.database_direct_url or self.database_url

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
