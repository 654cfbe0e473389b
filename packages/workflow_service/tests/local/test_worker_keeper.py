"""How long a failing worker is kept waiting."""

from workflow_service.local.worker_keeper import Backoff


def test_waits_grow_to_a_bound_and_start_anew_after_a_steady_life() -> None:
    """1, 2, 4 … 30 s while a worker fails at once; 1 s again after one that lived a minute."""
    backoff = Backoff()
    assert [backoff.after(0.5) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert [backoff.after(60.0), backoff.after(59.0)] == [1, 2]
