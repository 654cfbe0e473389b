"""Databases whose homes are gone: removed after a day, and only when nothing speaks for keeping them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from workflow_service.local.abandoned import GRACE, note_home, remove_abandoned

NAMES_PLACE = "postgresql.json"
NOW = 1_800_000_000.0  # seconds since 1970


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Where databases lie."""
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.fixture
def place(state: Path) -> Path:
    """A database of 1000 bytes."""
    folder = state / "0123456789abcdef"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "PG_VERSION").write_bytes(b"x" * 1000)
    return folder


@pytest.fixture
def home(tmp_path: Path, place: Path) -> Path:
    """Its home."""
    folder = tmp_path / "home"
    make_home(folder, place)
    note_home(place, folder)
    return folder


def make_home(folder: Path, place: Path) -> None:
    folder.mkdir()
    (folder / NAMES_PLACE).write_text(json.dumps({"place": str(place)}))


def sweep(state: Path, now: float = NOW) -> list[tuple[str, float]]:
    return [(database.home, database.kept_for) for database in remove_abandoned(state, NAMES_PLACE, now)]


def test_a_database_is_kept_for_a_day_after_its_home_and_then_removed(
    state: Path, place: Path, home: Path
) -> None:
    """Each look says which home is gone and how long its database is still kept."""
    assert sweep(state) == []
    shutil.rmtree(home)

    assert sweep(state) == [(str(home), GRACE)]
    assert sweep(state, NOW + GRACE - 1) == [(str(home), 1.0)]
    assert place.exists()
    [removed] = remove_abandoned(state, NAMES_PLACE, NOW + GRACE)
    assert (removed.home, removed.kept_for) == (str(home), 0.0)
    assert removed.size >= 1000
    assert list(state.iterdir()) == []
    assert sweep(state, NOW + GRACE) == []


def test_a_home_that_comes_back_keeps_its_database(state: Path, place: Path, home: Path) -> None:
    """The day begins anew each time the home goes away."""
    away = home.with_name("elsewhere")
    home.rename(away)
    assert sweep(state) == [(str(home), GRACE)]
    away.rename(home)
    assert sweep(state, NOW + 10 * GRACE) == []
    home.rename(away)
    assert sweep(state, NOW + 10 * GRACE) == [(str(home), GRACE)]
    assert place.exists()


def test_a_new_home_at_the_same_path_does_not_keep_the_old_database(state: Path, place: Path, home: Path) -> None:
    """It has a database of its own."""
    shutil.rmtree(home)
    make_home(home, state / "fedcba9876543210")
    assert sweep(state) == [(str(home), GRACE)]
    sweep(state, NOW + GRACE)
    assert not place.exists()


def test_a_file_system_that_is_not_there_tells_nothing(state: Path, place: Path, home: Path) -> None:
    """A home on a disk that is not mounted is not gone."""
    shutil.rmtree(home)
    file = state / f"{place.name}.home"
    note = json.loads(file.read_text())
    file.write_text(json.dumps({**note, "filesystem": [note["filesystem"][0] + 1, note["filesystem"][1]]}))
    assert sweep(state) == []
    assert sweep(state, NOW + GRACE) == []
    assert place.exists()


def test_a_database_that_a_process_works_on_is_left_alone(state: Path, place: Path, home: Path) -> None:
    """A server whose home was removed under it."""
    shutil.rmtree(home)
    sweep(state)
    server = subprocess.Popen([sys.executable, "-c", "input()"], cwd=place / "data", stdin=subprocess.PIPE)
    try:
        assert sweep(state, NOW + GRACE) == []
        assert place.exists()
    finally:
        server.communicate()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"home": 1, "filesystem": []}'])
def test_what_has_no_note_of_ours_is_left_alone(state: Path, place: Path, text: str) -> None:
    """Nor is a folder touched that has none at all."""
    (state / "somebody's data").mkdir()
    (state / f"{place.name}.home").write_text(text)
    assert sweep(state) == []
    assert sweep(state, NOW + GRACE) == []
    assert place.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_note_that_somebody_else_wrote_is_none(state: Path, place: Path, home: Path) -> None:
    """Whoever may write there does not choose what root removes."""
    shutil.rmtree(home)
    os.chown(state / f"{place.name}.home", 65534, 65534)
    assert sweep(state) == []
