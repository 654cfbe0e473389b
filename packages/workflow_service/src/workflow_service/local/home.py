"""The home folder: private files of one running service, and the lock that lets only one supervisor in."""

import fcntl
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from workflow_service.local.errors import HomeBusyError, HomeError

_MARK = "workflow-service.lock"


@dataclass(frozen=True, slots=True)
class Home:
    """A folder only its owner can read. ``path`` is absolute."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> "Home":
        """Make the folder if there is none, and see to it that nobody else can read it.

        Raises:
            HomeError: The folder belongs to somebody else, holds something else, or cannot be made.
        """
        path = path.expanduser().absolute()
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = path.resolve()
            held = path.stat()
            if held.st_uid != os.geteuid():
                raise HomeError(
                    f"the home {path} belongs to user id {held.st_uid}; choose your own with --home DIR"
                )
            # Refused before its permissions are touched: --home /tmp is a slip.
            if not (path / _MARK).exists() and any(path.iterdir()):
                raise HomeError(f"the home {path} holds other files; choose a new or empty folder with --home DIR")
            if stat.S_IMODE(held.st_mode) != 0o700:
                path.chmod(0o700)
        except OSError as exc:
            raise HomeError(f"the home {path} cannot be used: {exc}; choose another with --home DIR") from exc
        return cls(path)

    @property
    def logs(self) -> Path:
        """Where the processes write."""
        return self.path / "logs"

    @property
    def processes(self) -> Path:
        """Where the records of started processes are."""
        return self.path / "processes"

    @property
    def broker_url(self) -> str:
        """The file broker of this home."""
        return f"safefs://{quote(str(self.path / 'broker'))}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the home's lock; the kernel drops it when this process ends, however it ends.

        Raises:
            HomeBusyError: Another process holds it; the message names its pid.
        """
        # A POSIX record lock (lockf) is never inherited by a forked child, unlike flock: a child that outlives
        # us must not hold the home. It is lost when any descriptor of the file is closed, so only this opens it.
        descriptor = os.open(self.path / _MARK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as exc:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                raise HomeBusyError(
                    f"the service runs already on {self.path} (process {holder}); "
                    "stop it with Ctrl-C there, or choose another home with --home DIR"
                ) from exc
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def api_keys(self) -> dict[str, str]:
        """Return user name to key, as kept in ``api-keys.json``; the first call makes one key for ``local``."""
        file = self.path / "api-keys.json"
        if not file.exists():
            write_private(file, json.dumps({"local": secrets.token_urlsafe(32)}))
        return read_api_keys(file.read_text(), str(file))

    def webhook_secret(self) -> str:
        """Return what users' secrets for webhooks are made of, as kept in ``webhook-secret``; made at first."""
        file = self.path / "webhook-secret"
        if not file.exists():
            write_private(file, secrets.token_urlsafe(32))
        return file.read_text()


def read_api_keys(text: str, where: str) -> dict[str, str]:
    """Return the keys in a JSON object of user name to key.

    Raises:
        HomeError: It is not such an object; the message names ``where`` and shows no key.
    """
    try:
        keys = json.loads(text)
    except ValueError:
        keys = None
    if not isinstance(keys, dict) or not keys or not all(isinstance(key, str) and key for key in keys.values()):
        raise HomeError(
            f'{where} must be a JSON object of user name to key, like {{"alice": "a long random string"}}'
        )
    return keys


def write_private(file: Path, text: str) -> None:
    """Write a file only its owner can read; readers see the old text or the new, never a part."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:  # noqa: PTH123
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    draft.replace(file)
