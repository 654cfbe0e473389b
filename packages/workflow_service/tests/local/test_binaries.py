"""PostgreSQL's programs and the user they run as: found, copied where others cannot read, or a clear error."""

import os
from pathlib import Path

import pytest

from workflow_service.local import binaries
from workflow_service.local.errors import DatabaseError
from workflow_service.local.os_user import database_user


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation in a folder that only we can reach."""
    root = tmp_path / "venv" / "pginstall18"
    for name in ("bin/postgres", "share/postgresql/postgres.bki", "include/postgres.h"):
        file = root / name
        file.parent.mkdir(parents=True, mode=0o700)
        file.write_text(name)
        file.chmod(0o700)
    (tmp_path / "venv").chmod(0o700)
    monkeypatch.setattr(binaries, "wheel_programs", lambda: root)
    return root


def test_unreadable_programs_are_copied_once(wheel: Path, tmp_path: Path) -> None:
    """What another user cannot read is copied, readable and without headers; the next start takes the copy."""
    shared = tmp_path / "shared"
    shared.mkdir()

    copy = binaries.programs_for_others(shared)

    assert copy.parent == shared
    assert (copy / "bin/postgres").stat().st_mode & 0o777 == 0o755
    assert (copy / "share/postgresql/postgres.bki").stat().st_mode & 0o777 == 0o644
    assert not (copy / "include").exists()
    (wheel / "bin/postgres").write_text("changed")
    assert binaries.programs_for_others(shared) == copy
    assert (copy / "bin/postgres").read_text() == "bin/postgres"
    assert list(shared.iterdir()) == [copy]


@pytest.mark.usefixtures("wheel")
def test_copy_that_fails_says_what_to_do(tmp_path: Path) -> None:
    """Without a place for the copy the error names the way out."""
    (tmp_path / "missing").touch()
    with pytest.raises(DatabaseError, match="put the virtual environment where every user can read it"):
        binaries.programs_for_others(tmp_path / "missing" / "shared")


def test_wheel_without_our_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel that has another PostgreSQL only is an error that names the version and the way out."""
    monkeypatch.setattr(binaries, "MAJOR", 3)

    with pytest.raises(DatabaseError, match=r"PostgreSQL 3 is not .*DATABASE_URL"):
        binaries.wheel_programs()


@pytest.mark.skipif(os.geteuid() != 0, reason="others run PostgreSQL as themselves")
def test_missing_user_that_cannot_be_made_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """As root without useradd, the error names the user to create and two other ways."""
    monkeypatch.setattr("shutil.which", lambda *_args, **_options: None)

    with pytest.raises(DatabaseError, match=r"needs a system user 'no-such-user'.*ordinary user.*DATABASE_URL"):
        database_user("no-such-user")


@pytest.mark.skipif(os.geteuid() != 0, reason="others run PostgreSQL as themselves")
def test_refusal_of_useradd_is_told() -> None:
    """What useradd says about a name it does not take is in the error."""
    with pytest.raises(DatabaseError, match="could not be made: useradd: invalid user name"):
        database_user("-")
