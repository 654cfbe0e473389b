"""Homes for one demonstration: in the system's temporary folder, removed afterwards, also those of killed ones."""

import asyncio
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from workflow_service.local.errors import DatabaseError, HomeBusyError
from workflow_service.local.home import Home
from workflow_service.local.postgresql import kept_cluster
from workflow_service.local.records import end_recorded

_PREFIX = "workflow-service-demo-"


@contextmanager
def temporary_home() -> Iterator[Home]:
    """Yield a home of its own and remove it, database included; before, remove what killed demonstrations left."""
    asyncio.run(_sweep())
    home = Home.open(Path(tempfile.mkdtemp(prefix=_PREFIX)))
    try:
        yield home
    finally:
        _remove(home)


def _abandoned() -> list[Home]:
    """Return the demonstrations' homes that are ours; which are still in use, their locks tell."""
    # Not opened as homes: one whose removal was interrupted may hold files and no lock file, and must go too.
    return [Home(place) for place in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*") if _is_ours(place)]


def _is_ours(place: Path) -> bool:
    # Anybody may make a folder of this name there; and one without records is being set up just now.
    try:
        found = place.lstat()
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and (place / "processes").exists()
    except OSError:  # removed meanwhile
        return False


async def _sweep() -> None:
    for home in _abandoned():
        try:
            with home.locked():
                await end_recorded(home)
                _remove(home)
        except (HomeBusyError, FileNotFoundError):  # in use; removed meanwhile
            continue


def _remove(home: Home) -> None:
    with suppress(DatabaseError):  # its file is damaged; a database elsewhere is found as abandoned
        cluster = kept_cluster(home)
        if cluster is not None:
            cluster.remove()
    shutil.rmtree(home.path, ignore_errors=True)
