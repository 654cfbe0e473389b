"""How long a failing worker is kept waiting, and when a silent one counts as frozen."""

import os
from pathlib import Path

from workflow_service.local.worker_keeper import Backoff, Silence


def test_waits_grow_to_a_bound_and_start_anew_after_a_steady_life() -> None:
    """1, 2, 4 … 30 s while a worker fails at once; 1 s again after one that lived a minute."""
    backoff = Backoff()
    assert [backoff.after(0.5) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert [backoff.after(60.0), backoff.after(59.0)] == [1, 2]


def _beat(pulse: Path, second: int) -> None:
    pulse.touch()
    os.utime(pulse, (second, second))  # of whatever clock


def test_a_worker_is_frozen_when_its_pulse_has_not_changed_for_as_long(tmp_path: Path) -> None:
    """Each beat begins the time anew, also one that the wall clock has put into the past."""
    pulse = tmp_path / "pulse"
    silence = Silence(pulse, 10.0)
    silence.start()
    _beat(pulse, 500)
    assert [silence.look(1.0) for _ in range(10)] == [False] * 10
    _beat(pulse, 400)
    assert [silence.look(1.0) for _ in range(11)] == [False] * 10 + [True]


def test_time_in_which_nobody_looked_is_not_the_workers_silence(tmp_path: Path) -> None:
    """Whatever stopped the supervisor for an hour may have stopped the worker, too: it has time to go on."""
    pulse = tmp_path / "pulse"
    silence = Silence(pulse, 10.0)
    silence.start()
    _beat(pulse, 1)
    assert [silence.look(passed) for passed in (1.0, 3600.0, 1.0)] == [False, False, False]


def test_a_worker_has_longer_until_its_first_beat(tmp_path: Path) -> None:
    """It has much to load; what the one before it has left in the file counts for nothing."""
    pulse = tmp_path / "pulse"
    _beat(pulse, 1)
    silence = Silence(pulse, 10.0)
    silence.start()
    assert [silence.look(1.0) for _ in range(40)] == [False] * 39 + [True]
