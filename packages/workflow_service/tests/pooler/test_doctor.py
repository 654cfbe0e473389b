"""``doctor`` and the settings, with a pooler between: it is recognised, and what is missing is told."""

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from workflow_service.bootstrap import open_api
from workflow_service.cli.doctor import Check, State, run_checks
from workflow_service.gateways.postgres.pooler import find_pooler
from workflow_service.local.service import Connection
from workflow_service.ports import InvalidSettingError
from workflow_service.settings import Settings

from .conftest import BOUND, PgBouncer, Pooled

BROKER = "redis://127.0.0.1:1/0"


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run all checks with these settings and return the one for the pooler, or None."""

    def look(**settings: str) -> Check | None:
        for name, value in {"BROKER_URL": BROKER, **settings}.items():
            monkeypatch.setenv(name, value)
        checks = {each.subject: each for each in asyncio.run(run_checks())}
        assert "went away" not in checks["database"].found
        return checks.get("pooler")

    return look


@pytest.mark.needs("postgres", "pgbouncer")
def test_doctor_recognises_a_pooler_and_says_what_to_set(pooled: Pooled, check: Any) -> None:
    """Without the setting it fails and names it; with the setting the address past the pooler is looked at."""
    found = check(DATABASE_URL=pooled.direct_url)
    assert (found.state, found.found) == (State.OK, "none: DATABASE_URL leads to the server itself")
    found = check(DATABASE_URL=pooled.url)
    assert (found.state, found.found) == (State.FAILED, "a pooler of transactions stands before the database")
    assert "WORKFLOW_DATABASE_POOLER=transaction, and WORKFLOW_DATABASE_DIRECT_URL" in found.advice
    told = {"DATABASE_URL": pooled.url, "WORKFLOW_DATABASE_POOLER": "transaction"}
    assert check(WORKFLOW_DATABASE_DIRECT_URL=pooled.direct_url, **told).state is State.OK
    found = check(WORKFLOW_DATABASE_DIRECT_URL=pooled.url, **told)
    assert (found.state, "nobody hears" in found.advice) == (State.FAILED, True)
    other = pooled.direct_url.rpartition("/")[0] + "/postgres"
    assert "another database" in check(WORKFLOW_DATABASE_DIRECT_URL=other, **told).found
    away = "postgresql://u:pa55word@127.0.0.1:1/d"
    found = check(WORKFLOW_DATABASE_DIRECT_URL=away, **told)
    assert (found.state, "does not answer at postgresql://u:***@" in found.found) == (State.FAILED, True)


@pytest.mark.needs("postgres", "pgbouncer")
@pytest.mark.parametrize(
    ("mode", "sessions", "found"),
    [("transaction", 1, "transaction"), ("transaction", 5, "transaction"), ("session", 2, "unknown")],
)
def test_poolers_are_told_apart_as_far_as_they_can_be(
    mode: str, sessions: int, found: str, database: str, pgbouncer: PgBouncer
) -> None:
    """One of transactions lends a session that another client waits with; one of sessions never does."""
    assert asyncio.run(find_pooler(pgbouncer(database, mode, sessions))) == found
    assert asyncio.run(find_pooler(database)) is None


def test_a_pooler_needs_the_address_past_it() -> None:
    """Without one nobody would hear of a run's changes, so the settings are refused."""
    there: dict[str, Any] = {"database_url": "postgresql://u@pooler/d", "broker_url": BROKER}
    with pytest.raises(ValidationError, match="set WORKFLOW_DATABASE_DIRECT_URL too"):
        Settings(**there, database_pooler="transaction")
    assert Settings(**there).direct_url == "postgresql://u@pooler/d"
    direct = "postgresql://u:pa55word@h/d"
    settings = Settings(**there, database_pooler="transaction", database_direct_url=direct)
    assert settings.direct_url == direct
    assert "pa55word" in settings.secrets()


def test_the_pooler_of_another_database_is_not_of_the_embedded_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """``up --embedded`` beside settings for production: they hold for the database that they were made for."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://u@pooler/d")
    monkeypatch.setenv("WORKFLOW_DATABASE_POOLER", "transaction")
    monkeypatch.setenv("WORKFLOW_DATABASE_DIRECT_URL", "postgresql://u@h/d")
    monkeypatch.setenv("WORKFLOW_WEBHOOK_SECRETS", '["a secret that is long enough"]')

    def environment(database_url: str) -> dict[str, str]:
        facts: dict[str, Any] = {
            "address": "",
            "database_url": database_url,
            "broker_url": "",
            "api_keys": {},
            "concurrency": 1,
        }
        return Connection(**facts, supervisor=1, supervisor_created=0.0).environment(tmp_path)

    assert environment("postgresql://u@pooler/d")["WORKFLOW_DATABASE_POOLER"] == "transaction"
    assert not [
        name for name in environment("postgresql://embedded/d") if "DATABASE_POOLER" in name or "DIRECT" in name
    ]


def test_two_addresses_of_different_databases_are_refused_at_the_start(empty_database: str, database: str) -> None:
    """What is brought up to date at one would be missing at the other, run by run."""
    settings = Settings.model_validate(
        {
            "DATABASE_URL": empty_database,
            "database_pooler": "transaction",
            "database_direct_url": database,
            "BROKER_URL": BROKER,
        }
    )

    async def main() -> None:
        async with asyncio.timeout(BOUND), open_api(settings):
            raise AssertionError("it was not refused")

    with pytest.raises(InvalidSettingError, match="DIRECT_URL leads to another database than DATABASE_URL"):
        asyncio.run(main())
