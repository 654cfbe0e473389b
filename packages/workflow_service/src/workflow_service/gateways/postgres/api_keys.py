"""API keys, kept in a table as digests."""

import hmac
from collections.abc import Sequence
from datetime import timedelta

import asyncpg

from workflow_service.domain.identity import ApiKey, digest, join_key, new_key
from workflow_service.gateways.postgres.connection import Connect, open_key_session, open_operator_session

_NO_DIGEST = bytes(32)  # of no secret; compared when there is no such key, so that both ways are one

_COLUMNS = "prefix, user_id, label, created_at, expires_at, last_used_at, revoked_at"

_FIND = """
SELECT user_id, digest, last_used_at IS NULL OR last_used_at < clock_timestamp() - interval '1 minute' AS is_stale
FROM workflow.api_keys
WHERE prefix = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
"""

# Not with every request: a row that is written all the time is a row that all requests of a user wait for.
_NOTE_USE = "UPDATE workflow.api_keys SET last_used_at = clock_timestamp() WHERE prefix = $1"

_CREATE = f"""
INSERT INTO workflow.api_keys (prefix, user_id, label, digest, expires_at)
VALUES ($1, $2, $3, $4, clock_timestamp() + $5::interval)
RETURNING {_COLUMNS}
"""  # noqa: S608

_LIST = f"""
SELECT {_COLUMNS} FROM workflow.api_keys WHERE $1::text IS NULL OR user_id = $1 ORDER BY created_at DESC, prefix
"""  # noqa: S608

_REVOKE = f"""
UPDATE workflow.api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp())
WHERE prefix = $1 RETURNING {_COLUMNS}
"""  # noqa: S608


class PostgresApiKeyStore:
    """Fits the ApiKeyStore port, and manages keys for the command line."""

    def __init__(self, connect: Connect) -> None:
        """Keep keys in the database that ``connect`` lends connections to."""
        self._connect = connect

    async def user_of(self, prefix: str, secret: str) -> str | None:
        """Return whose key this is; None if there is none, or it is revoked, expired, or of another secret.

        Notes when the key was last used, to the minute.
        """
        async with open_key_session(self._connect, prefix) as connection:
            row = await connection.fetchrow(_FIND, prefix)
            kept: bytes = _NO_DIGEST if row is None else row["digest"]
            # In constant time, and of digests: how long it takes tells nothing of the secret that is kept.
            if not hmac.compare_digest(kept, digest(secret)) or row is None:
                return None
            if row["is_stale"]:
                await connection.execute(_NOTE_USE, prefix)
            user_id: str = row["user_id"]
            return user_id

    async def create(self, user_id: str, label: str = "", lifetime: timedelta | None = None) -> tuple[str, ApiKey]:
        """Make a key for a user and return it, for the only time, with what is kept of it.

        Args:
            user_id: Who presents the key is this user; one that was never heard of is fine.
            label: What the key is for.
            lifetime: How long it is good; None is until it is revoked.
        """
        prefix, secret = new_key()
        async with open_operator_session(self._connect) as connection:
            row = await connection.fetchrow(_CREATE, prefix, user_id, label, digest(secret), lifetime)
        assert row is not None  # an INSERT returns its row
        return join_key(prefix, secret), _key(row)

    async def list_keys(self, user_id: str | None = None) -> Sequence[ApiKey]:
        """Return the keys of a user, None of all, newest first; those that are no longer good too."""
        async with open_operator_session(self._connect) as connection:
            return [_key(row) for row in await connection.fetch(_LIST, user_id)]

    async def revoke(self, prefix: str) -> ApiKey | None:
        """Let a key open nothing from now on; return it, or None when there is no such key."""
        async with open_operator_session(self._connect) as connection:
            row = await connection.fetchrow(_REVOKE, prefix)
        return None if row is None else _key(row)


def _key(row: asyncpg.Record) -> ApiKey:
    return ApiKey(**row)
