"""What says whether a call that failed is tried again."""

import pickle
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from workflow_service.external import ServiceCallError
from workflow_service.external.faults import retry_after


def test_call_errors_survive_pickle() -> None:
    """They may cross a process tier."""
    error = ServiceCallError("refused", 1006, 400, False, True, 2.5)
    same = pickle.loads(pickle.dumps(error))
    assert (str(same), same.code, same.status, same.retry_after) == ("refused", 1006, 400, 2.5)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("9" * 40, 999_999_999),
        ("", None),
        ("-1", None),
        ("soon", None),
        ("1.5", None),
    ],
)
def test_retry_after_in_seconds(value: str, seconds: float | None) -> None:
    """A number is taken, what makes no sense is left."""
    assert retry_after({"retry-after": value}) == seconds


def test_retry_after_as_a_date() -> None:
    """In the future it is so far away; in the past it is now."""
    soon = retry_after({"retry-after": format_datetime(datetime.now(UTC) + timedelta(minutes=2), usegmt=True)})
    assert soon is not None
    assert 60 < soon <= 120
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert retry_after({}) is None


@pytest.mark.parametrize(
    ("status", "is_transient", "was_done"),
    [
        (400, False, True),
        (403, False, True),
        (425, True, False),
        (429, True, False),
        (500, True, True),
        (503, True, True),
    ],
)
def test_what_a_status_says(status: int, is_transient: bool, was_done: bool) -> None:
    """Whether another attempt may pass, and whether the provider may have done something."""
    error = ServiceCallError.of_status(status, {"retry-after": "3"}, "no")
    assert (error.is_transient, error.was_done, error.retry_after) == (is_transient, was_done, 3)
