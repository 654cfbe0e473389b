"""Databases that lie outside of their homes, as root's do: whose each one is, and its end without it."""

import json
import os
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from workflow_service.local.home import write_private

GRACE = 24 * 3600.0  # seconds a database outlives its home: somebody may have moved it, or moves it back
_SUFFIX = ".home"


@dataclass(frozen=True, slots=True)
class AbandonedDatabase:
    """A database whose home is gone. ``size`` is in bytes; ``kept_for`` in seconds, 0 if it has been removed."""

    home: str
    place: Path
    size: int
    kept_for: float


@dataclass(frozen=True, slots=True)
class _Note:
    """Whose database it is, beside its folder. ``missed`` is since when the home is gone, by the wall clock."""

    home: str
    filesystem: list[int]
    missed: float | None = None


def note_home(place: Path, home: Path) -> None:
    """Write down beside ``place`` that it belongs to ``home``, which exists."""
    _write(place, _Note(str(home), _filesystem(home)))


def forget_home(place: Path) -> None:
    """Remove what `note_home` wrote; nothing if it has not."""
    _file(place).unlink(missing_ok=True)


def remove_abandoned(state: Path, names_place: str, now: float | None = None) -> list[AbandonedDatabase]:
    """Remove the databases in ``state`` whose home has been gone for a day, and return all whose home is gone.

    Removed is only what has a note of ours, and whose home is gone while the file system it was on is there (one
    that is not mounted tells nothing), and on which no process works.

    Args:
        state: The folder; nothing happens if it is not there.
        names_place: The home's file that names its database: a home that names another one counts as gone.
        now: Seconds since 1970; None is the clock.
    """
    present = time.time() if now is None else now
    abandoned = []
    for file in sorted(state.glob(f"*{_SUFFIX}")):
        place = file.with_suffix("")
        with suppress(OSError, ValueError, TypeError, KeyError):  # not readable as a note of ours: left alone
            found = file.lstat()
            if found.st_uid != os.geteuid() or place.is_symlink():
                continue
            note = _Note(**json.loads(file.read_text()))
            if _is_gone(note, place, names_place) and not _is_in_use(place):
                abandoned.append(_remove_when_due(place, note, present))
            elif note.missed is not None:
                _write(place, replace(note, missed=None))
    return abandoned


def _remove_when_due(place: Path, note: _Note, now: float) -> AbandonedDatabase:
    missed = now if note.missed is None else note.missed
    size = sum(path.lstat().st_size for path in place.rglob("*"))
    kept_for = max(0.0, missed + GRACE - now) if place.exists() else 0.0
    if kept_for:
        _write(place, replace(note, missed=missed))
    else:
        shutil.rmtree(place, ignore_errors=True)
        if not place.exists():
            forget_home(place)
    return AbandonedDatabase(note.home, place, size, kept_for)


def _is_gone(note: _Note, place: Path, names_place: str) -> bool:
    home = Path(note.home)
    if home.exists():
        try:
            return bool(json.loads((home / names_place).read_text())["place"] != str(place))
        except FileNotFoundError:
            return True
    nearest = next(parent for parent in home.parents if parent.exists())
    return _filesystem(nearest) == note.filesystem


def _is_in_use(place: Path) -> bool:
    resolved = place.resolve()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(resolved):
                return True
    return False


def _filesystem(path: Path) -> list[int]:
    return [path.stat().st_dev, os.statvfs(path).f_fsid]


def _file(place: Path) -> Path:
    return place.with_name(f"{place.name}{_SUFFIX}")


def _write(place: Path, note: _Note) -> None:
    write_private(_file(place), json.dumps(asdict(note)))
