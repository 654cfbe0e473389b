"""Find out who asks, from what they present."""

import hmac
import time
from collections import OrderedDict
from collections.abc import Mapping

from workflow_service.domain.identity import digest, is_user_id, split_key
from workflow_service.ports import ApiKeyStore, TokenVerifier

REMEMBERED = 5.0
"""Seconds for which a key that was found in the database is believed: it is asked for with every request, and a
revoked one opens nothing after this time."""

_MOST = 10_000  # keys remembered


class Identification:
    """Knows users by fixed keys, by keys in the database and, where configured, by tokens of an issuer.

    On one loop.
    """

    def __init__(self, fixed: Mapping[str, str], keys: ApiKeyStore, tokens: TokenVerifier | None = None) -> None:
        """Join the ways: ``fixed`` maps user names to keys, and an empty key opens nothing."""
        self._fixed = {user_id: digest(key) for user_id, key in fixed.items() if key}
        self._keys = keys
        self._tokens = tokens
        self._remembered: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    async def user_of(self, credentials: bytes) -> str | None:
        """Return the user who presents ``credentials``, the bytes after ``Bearer``; None if nobody does.

        Raises:
            StoreUnavailableError: The database did not answer: nobody knows.
        """
        candidate = digest(credentials)
        found = self._fixed_user_of(candidate)
        if found is not None:
            return found
        try:
            text = credentials.decode("ascii")
        except UnicodeDecodeError:
            return None
        if (halves := split_key(text)) is not None:
            return self._recall(candidate) or await self._look_up(candidate, *halves)
        return self._tokens.user_of(text) if self._tokens is not None else None

    def _fixed_user_of(self, candidate: bytes) -> str | None:
        found = None
        # Every key is compared, each in constant time and as a digest, for compare_digest tells lengths apart:
        # how long it takes tells nothing about any key.
        for user_id, kept in self._fixed.items():
            if hmac.compare_digest(candidate, kept):
                found = user_id
        return found

    def _recall(self, candidate: bytes) -> str | None:
        user_id, until = self._remembered.get(candidate, ("", 0.0))
        return user_id if until > time.monotonic() else None

    async def _look_up(self, candidate: bytes, prefix: str, secret: str) -> str | None:
        user_id = await self._keys.user_of(prefix, secret)
        self._remembered.pop(candidate, None)
        # Only what was found: wrong keys, of which there are many, would drive the right ones out.
        if user_id is not None and is_user_id(user_id):
            self._remembered[candidate] = user_id, time.monotonic() + REMEMBERED
            if len(self._remembered) > _MOST:
                self._remembered.popitem(last=False)
        return user_id
