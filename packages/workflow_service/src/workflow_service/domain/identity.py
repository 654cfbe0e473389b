"""Who a user is, and what a key looks like."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime

MAX_USER_ID = 255  # characters

_KEY = re.compile(r"(wsk_[0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a key besides the digest of its secret. ``prefix`` is its public half and names it."""

    prefix: str
    user_id: str
    label: str
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None


def is_user_id(text: str) -> bool:
    """Return whether ``text`` can name a user: 1 to 255 characters, none of control, no white space around."""
    return 0 < len(text) <= MAX_USER_ID and text == text.strip() and _CONTROL.search(text) is None


def new_key() -> tuple[str, str]:
    """Return a new key's prefix and secret: 48 bits to find it by, and 256 that nobody guesses."""
    return f"wsk_{secrets.token_hex(6)}", secrets.token_urlsafe(32)


def join_key(prefix: str, secret: str) -> str:
    """Return the key as its user presents it."""
    return f"{prefix}_{secret}"


def split_key(presented: str) -> tuple[str, str] | None:
    """Return the prefix and the secret of a presented key; None when it has not the form of one."""
    match = _KEY.fullmatch(presented)
    return None if match is None else (match[1], match[2])


def digest(secret: str | bytes) -> bytes:
    """Return what is kept, and compared, of a secret.

    A plain hash: slow ones are for passwords, which people choose and others guess. Of 256 random bits nobody
    tries enough in any time, and a slow hash would be work that anyone could order with a wrong key.
    """
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).digest()
