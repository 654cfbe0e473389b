"""API keys in the database: what they open, for how long, and what is kept of them."""

import asyncio
import hmac
from datetime import timedelta

import asyncpg
import pytest
from click.testing import CliRunner

from workflow_service.cli.commands import main
from workflow_service.domain.identity import is_user_id, split_key
from workflow_service.gateways.postgres.api_keys import PostgresApiKeyStore
from workflow_service.usecases import identification as identification_module
from workflow_service.usecases.identification import Identification

pytestmark = pytest.mark.needs("postgres")


class CountingStore:
    """Fits the ApiKeyStore port; counts how often the database is asked."""

    def __init__(self, store):
        self._store = store
        self.asked = 0

    async def user_of(self, prefix, secret):
        self.asked += 1
        return await self._store.user_of(prefix, secret)


def test_a_key_is_its_users(with_pool):
    """The key that was made opens; its prefix, its secret, another's secret and a changed one do not."""

    async def scenario(pool):
        store = PostgresApiKeyStore(pool.acquire)
        key, kept = await store.create("alice", "laptop")
        other, _ = await store.create("bob")
        known = Identification({}, store)
        assert await known.user_of(key.encode()) == "alice"
        prefix, secret = split_key(key)
        assert kept.prefix == prefix
        assert kept.expires_at is None
        strangers = (
            *(
                "",
                prefix,
                secret,
                f"{prefix}_",
                f"{prefix}_{split_key(other)[1]}",
                key[:-1],
                key + "x",
                key.upper(),
            ),
            *(key[:-1] + ("A" if key[-1] != "A" else "B"), f"{prefix}_{'%' * 43}", "wsk_000000000000_" + secret),
        )
        for stranger in strangers:
            assert await known.user_of(stranger.encode()) is None
        assert await known.user_of(b"\xff" + key.encode()) is None

    with_pool(scenario)


def test_of_a_key_only_a_digest_is_kept(with_pool, database):
    """Neither the key nor its secret is anywhere in the row."""

    async def scenario(pool):
        key, _ = await PostgresApiKeyStore(pool.acquire).create("alice")
        row = await pool.fetchval(
            "SELECT api_keys::text FROM workflow.api_keys WHERE prefix = $1", split_key(key)[0]
        )
        assert split_key(key)[1] not in row
        assert split_key(key)[1].encode().hex() not in row

    with_pool(scenario)


def test_a_revoked_or_expired_key_opens_nothing(with_pool):
    """At once where it is asked for; revoking again changes nothing; what is not there is None."""

    async def scenario(pool):
        store = PostgresApiKeyStore(pool.acquire)
        key, kept = await store.create("alice", lifetime=timedelta(days=1))
        assert await store.user_of(*split_key(key)) == "alice"
        first = await store.revoke(kept.prefix)
        assert await store.user_of(*split_key(key)) is None
        assert (await store.revoke(kept.prefix)).revoked_at == first.revoked_at
        assert await store.revoke("wsk_nothing") is None
        expired, _ = await store.create("alice", lifetime=timedelta(seconds=-1))
        assert await store.user_of(*split_key(expired)) is None

    with_pool(scenario)


def test_last_use_is_noted_to_the_minute(with_pool):
    """By who has the secret only; a second use within the minute writes nothing."""

    async def scenario(pool):
        store = PostgresApiKeyStore(pool.acquire)
        key, kept = await store.create("dora")
        assert await store.user_of(kept.prefix, "x" * 43) is None
        assert (await store.list_keys("dora"))[0].last_used_at is None
        for _ in range(2):
            await store.user_of(*split_key(key))
        [used] = await store.list_keys("dora")
        assert used.last_used_at is not None
        await store.user_of(*split_key(key))
        assert await store.list_keys("dora") == [used]
        await pool.execute(
            "UPDATE workflow.api_keys SET last_used_at = last_used_at - interval '2 minutes' WHERE prefix = $1",
            kept.prefix,
        )
        await store.user_of(*split_key(key))
        assert (await store.list_keys("dora"))[0].last_used_at > used.last_used_at - timedelta(minutes=1)

    with_pool(scenario)


def test_a_known_key_is_believed_for_a_short_time(with_pool, monkeypatch):
    """The database is asked once meanwhile; wrong keys are never remembered, and revoking shows after it."""

    async def scenario(pool):
        store = PostgresApiKeyStore(pool.acquire)
        counting = CountingStore(store)
        key, kept = await store.create("alice")
        known = Identification({}, counting)
        for _ in range(5):
            assert await known.user_of(key.encode()) == "alice"
        assert counting.asked == 1
        wrong = f"{kept.prefix}_{'x' * 43}".encode()
        for _ in range(2):
            assert await known.user_of(wrong) is None
        assert counting.asked == 3
        await store.revoke(kept.prefix)
        monkeypatch.setattr(identification_module, "REMEMBERED", 0.0)
        fresh = Identification({}, counting)
        assert await fresh.user_of(key.encode()) is None

    with_pool(scenario)


def test_what_is_remembered_has_a_bound(with_pool, monkeypatch):
    """However many keys there are."""
    monkeypatch.setattr(identification_module, "_MOST", 2)

    async def scenario(pool):
        store = PostgresApiKeyStore(pool.acquire)
        counting = CountingStore(store)
        known = Identification({}, counting)
        made = [(await store.create("alice"))[0].encode() for _ in range(3)]
        for key in (*made, *made):
            assert await known.user_of(key) == "alice"
        assert len(known._remembered) == 2

    with_pool(scenario)


def test_secrets_are_compared_in_constant_time_and_one_length(with_pool, monkeypatch):
    """Also where there is no such key: it is compared with a digest of nothing."""
    lengths = []
    compare = hmac.compare_digest

    def compare_digest(first, second):
        lengths.append((len(first), len(second)))
        return compare(first, second)

    monkeypatch.setattr(hmac, "compare_digest", compare_digest)

    async def scenario(pool):
        store = PostgresApiKeyStore(pool.acquire)
        key, kept = await store.create("alice")
        for prefix, secret in (split_key(key), (kept.prefix, "x" * 43), ("wsk_nothing", "x")):
            await store.user_of(prefix, secret)

    with_pool(scenario)
    assert lengths == [(32, 32)] * 3


@pytest.mark.parametrize("name", ["", " alice", "alice\n", "a\0b", "x" * 256, "a\u2028b", "\x9f"])
def test_what_cannot_name_a_user_is_refused(name):
    """Nothing that logs or pages would show as something else."""
    assert not is_user_id(name)


@pytest.mark.parametrize("name", ["a", "alice@example.org", "auth0|5f7c", "Zoë", "x" * 255, "o'brien", "a b"])
def test_what_issuers_call_their_users_is_taken(name):
    """Subjects are opaque texts."""
    assert is_user_id(name)


@pytest.fixture
def command(database, monkeypatch):
    """Run ``workflow-service keys`` on the test's database."""
    monkeypatch.setenv("DATABASE_URL", database)
    return lambda *arguments: CliRunner().invoke(main, ["keys", *arguments])


def test_the_command_makes_lists_and_revokes(command, database):
    """The key alone goes to standard output; the list shows no secret; revoked is said."""
    made = command("create", "erin", "--label", "CI", "--expires-in", "90d")
    assert made.exit_code == 0
    key = made.stdout.strip()
    prefix, secret = split_key(key)
    assert prefix in made.stderr
    assert secret not in made.stderr
    listed = command("list", "--user", "erin").stdout
    assert prefix in listed
    assert "CI" in listed
    assert "good until" in listed
    assert "never" in listed
    assert secret not in listed
    assert f'"prefix": "{prefix}"' in command("list", "--json").stdout
    assert command("revoke", key).stdout == f"Revoked {prefix} of erin.\n"
    assert "revoked" in command("list", "--user", "erin").stdout

    async def ask():
        async with asyncpg.create_pool(database, min_size=1, max_size=1) as pool:
            return await PostgresApiKeyStore(pool.acquire).user_of(prefix, secret)

    assert asyncio.run(ask()) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", ""), "1 to 255 characters"),
        (("create", "a\nb"), "1 to 255 characters"),
        (("create", "alice", "--expires-in", "soon"), "12h, 90d or 4w"),
        (("create", "alice", "--expires-in", "99999w"), "ten years"),
        (("revoke", "wsk_nothing"), "keys list"),
    ],
)
def test_the_command_says_what_is_wrong(command, arguments, words):
    """And ends with an exit code that says so."""
    ended = command(*arguments)
    assert ended.exit_code != 0
    assert words in ended.stderr


def test_the_command_names_a_database_without_tables(empty_database, monkeypatch):
    """Instead of a traceback."""
    monkeypatch.setenv("DATABASE_URL", empty_database)
    ended = CliRunner().invoke(main, ["keys", "list"])
    assert ended.exit_code == 1
    assert "no tables of the service" in ended.stderr
