"""Why a call of an external service failed, and whether another attempt may help."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_REFUSED_FOR_NOW = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that another attempt may not meet again."""

_NOTHING_DONE = frozenset({425, 429})
"""Statuses that say the request was not worked on."""


class ServiceCallError(Exception):
    """A call of an external service failed; its callers get it as a response with ``success=False``.

    Args:
        message: What happened, for the user who called. No secrets.
        code: The provider's own code, or one of ours.
        status: HTTP status, if there was an answer.
        is_transient: Whether another attempt may succeed.
        was_done: Whether the provider may have worked on the request: then only an idempotent operation is
            tried again.
        retry_after: Seconds the provider asks to wait.
    """

    def __init__(
        self,
        message: str,
        code: str | int | None = None,
        status: int | None = None,
        is_transient: bool = False,
        was_done: bool = True,
        retry_after: float | None = None,
    ) -> None:
        """Describe the failure."""
        super().__init__(message, code, status, is_transient, was_done, retry_after)
        self.message, self.code, self.status = message, code, status
        self.is_transient, self.was_done, self.retry_after = is_transient, was_done, retry_after

    def __str__(self) -> str:
        """Return the message."""
        return self.message

    @classmethod
    def of_status(
        cls, status: int, headers: Mapping[str, str], message: str, code: str | int | None = None
    ) -> "ServiceCallError":
        """Describe an answer that is no success: what its status and Retry-After say about another attempt."""
        return cls(
            message,
            code,
            status,
            is_transient=status in _REFUSED_FOR_NOW,
            was_done=status not in _NOTHING_DONE,
            retry_after=retry_after(headers),
        )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a Retry-After header asks to wait, be it a number or a date; None without sense."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # OverflowError: the number of a year or a zone has no bound
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
