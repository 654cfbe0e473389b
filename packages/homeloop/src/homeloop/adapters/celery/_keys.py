"""The keys that seal what the broker and the database shall not read."""

import json
import time
from collections.abc import Sequence
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from homeloop.errors import UserContextError

_NEW_KEY = "python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"


def fernet_of(keys: Sequence[str | bytes]) -> MultiFernet:
    """
    Return what seals with the first key and opens with all of them.

    Raises:
        UserContextError: There is no key, or one is none; it is not shown.
    """
    if isinstance(keys, (str, bytes)):
        raise UserContextError("keys must be a sequence of keys, the newest first; got one string")
    if not keys:
        raise UserContextError(f"sealing needs a key; make one with: {_NEW_KEY}")
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except (ValueError, TypeError):  # its text would not help, and the key must not be shown
        raise UserContextError(f"one of the keys is no Fernet key; make one with: {_NEW_KEY}") from None


def seal(fernet: MultiFernet, kind: str, task_id: str, value: object, since: int | None = None) -> bytes:
    """
    Seal a value that JSON knows: as this kind, for this task, and for nothing else.

    Args:
        since: The moment that `unseal` returns, in seconds since the epoch; now if None.
    """
    plain = json.dumps([kind, task_id, value]).encode()
    return fernet.encrypt_at_time(plain, int(time.time()) if since is None else since)


def unseal(fernet: MultiFernet, kind: str, task_id: str, sealed: bytes) -> tuple[Any, int]:
    """
    Return the value that `seal` was given, and the moment.

    Raises:
        UserContextError: It was not sealed with one of the keys, or as something else, or for another task.
    """
    try:
        found_kind, found_id, value = json.loads(fernet.decrypt(sealed))
        since = fernet.extract_timestamp(sealed)
    except (InvalidToken, ValueError, TypeError):
        found_kind = found_id = value = since = None
    if since is None or found_kind != kind:
        raise UserContextError(
            f"the {kind} of task {task_id} was tampered with, or sealed with a key this worker does not have"
        )
    if found_id != task_id:
        raise UserContextError(f"the {kind} of task {task_id} was sealed for task {found_id}: replayed?")
    return value, since
