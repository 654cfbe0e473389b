"""The operating system user PostgreSQL runs as: our own, or a system user when we are root."""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass

from workflow_service.local.errors import DatabaseError

NAME = "workflow-service"


@dataclass(frozen=True, slots=True)
class OsUser:
    """A user of this machine."""

    name: str
    uid: int
    gid: int


def database_user(name: str = NAME) -> OsUser | None:
    """Return the user to run PostgreSQL as: None for our own, or as root the system user, made if absent.

    Raises:
        DatabaseError: We are root and the user is missing and cannot be made.
    """
    if os.geteuid() != 0:
        return None
    try:
        return _look_up(name)
    except KeyError:
        _create(name)
    try:
        return _look_up(name)
    except KeyError:
        raise DatabaseError(f"useradd succeeded but there is no user {name!r}; {_WAYS_OUT}") from None


_WAYS_OUT = "run as an ordinary user instead, or point DATABASE_URL at a PostgreSQL server of yours"


def _look_up(name: str) -> OsUser:
    entry = pwd.getpwnam(name)
    return OsUser(name, entry.pw_uid, entry.pw_gid)


def _create(name: str) -> None:
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    needs = f"PostgreSQL refuses to run as root and needs a system user {name!r}"
    if useradd is None:
        raise DatabaseError(f"{needs}, but there is no useradd here; create that user, {_WAYS_OUT}")
    command = [useradd, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    done = subprocess.run(
        [*command, "--shell", "/usr/sbin/nologin", name], capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode not in (0, 9):  # 9: another process has just made it
        reason = done.stderr.strip() or f"useradd exited with {done.returncode}"
        raise DatabaseError(f"{needs}, which could not be made: {reason}; {_WAYS_OUT}")
