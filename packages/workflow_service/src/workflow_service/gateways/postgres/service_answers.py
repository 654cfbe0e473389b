"""Answers of external services, kept in a table."""

from typing import Any

from workflow_service.gateways.postgres.connection import (
    Connect,
    encode_json_aside,
    open_service_session,
    open_session,
)
from workflow_service.ports import KeptAnswer

_MAX_CHARACTERS = 1024 * 1024
"""Of the JSON of one answer. A guess: larger ones cost the database more than the provider."""

_PRUNED = 1000
"""Answers that `prune` removes at once: bounds how long it holds locks."""


class PostgresAnswerCache:
    """Fits the AnswerCache port."""

    def __init__(self, connect: Connect, max_entries: int) -> None:
        """Keep answers, at most ``max_entries`` for a user, in the database that ``connect`` reaches."""
        self._connect = connect
        self._max_entries = max_entries

    async def find(self, user_id: str, key: bytes, max_age: float) -> KeptAnswer | None:
        """Return the user's answer under ``key`` if it is at most ``max_age`` seconds old."""
        async with open_session(self._connect, user_id) as connection:
            row = await connection.fetchrow(_FIND, user_id, key, max_age)
        return None if row is None else KeptAnswer(row["data"], row["age"])

    async def keep(self, user_id: str, key: bytes, service: str, data: Any, ttl: float) -> None:  # Any: JSON
        """Keep an answer for ``ttl`` seconds at least; the user's oldest answers make place for it.

        Raises:
            TypeError: ``data`` is no JSON. Nothing was kept.
            ValueError: ``data`` holds NaN or an infinity, or has more than 1 MiB. Nothing was kept.
        """
        text = await encode_json_aside(data)
        if len(text) > _MAX_CHARACTERS:
            raise ValueError(
                f"the answer has {len(text)} characters, more than the {_MAX_CHARACTERS} that are kept"
            )
        async with open_session(self._connect, user_id) as connection:
            await connection.execute(_KEEP, user_id, key, service, text, ttl)
            await connection.execute(_MAKE_PLACE, user_id, self._max_entries)

    async def prune(self) -> int:
        """Remove answers that nobody may use any more, of all users; return how many those were."""
        async with open_service_session(self._connect) as connection:
            return len(await connection.fetch(_PRUNE, _PRUNED))


_FIND = """
SELECT data, extract(epoch FROM clock_timestamp() - stored_at)::float8 AS age
FROM workflow.service_answers
WHERE user_id = $1 AND key = $2 AND stored_at >= clock_timestamp() - make_interval(secs => $3)
"""

_KEEP = """
INSERT INTO workflow.service_answers (user_id, key, service, data, stored_at, expires_at)
VALUES ($1, $2, $3, $4, clock_timestamp(), clock_timestamp() + make_interval(secs => least($5, 1e9)))
ON CONFLICT (user_id, key) DO UPDATE
SET data = excluded.data, stored_at = excluded.stored_at, expires_at = excluded.expires_at
"""

_MAKE_PLACE = """
DELETE FROM workflow.service_answers
WHERE user_id = $1
  AND (expires_at < clock_timestamp()
       OR key IN (
           SELECT key FROM workflow.service_answers WHERE user_id = $1 ORDER BY stored_at DESC, key OFFSET $2
       ))
"""

_PRUNE = """
DELETE FROM workflow.service_answers
WHERE (user_id, key) IN (
    SELECT user_id, key FROM workflow.service_answers
    WHERE expires_at < clock_timestamp() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
RETURNING key
"""
