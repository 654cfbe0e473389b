"""A folder of messages: where they wait, and which living process holds which. Every step is one atomic rename.

    workflow-service.broker                     says that the folder is a broker's
    queues/<queue>/<stamp>.<producer>.<n>       waits; sorted by name is first in, first out; n: deliveries so far
    leased/<owner>/<queue>/<stamp>.<...>        is held by the process whose lock is on leased/<owner>/owner.lock
    leased/<owner>/.new/                        messages being written
    leased/<owner>/.transient/<queue>           this queue ends with its owners
    wake/<owner>.<k>                            FIFO that tells a consumer to look
    exchanges/<exchange>/<digest>               one binding
    dead/<queue>/                               what could not be read

A lease lasts as long as its process. The proof of life is a POSIX record lock, because the kernel drops it at the
very moment a process ends, however it ends, and a forked child does not inherit it. No clock takes part.

Local file systems only, Linux and macOS. This module is longer than most: the steps guard each other's races and
are read best in one place.
"""

import contextlib
import errno
import fcntl
import hashlib
import heapq
import itertools
import json
import logging
import os
import re
import selectors
import shutil
import stat
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

__all__ = ("Binding", "Leased", "Owner", "Wake", "in_order", "join")

logger = logging.getLogger(__name__)

_MARK = "workflow-service.broker"
_LOCK = "owner.lock"
_NEW = ".new"
_TRANSIENT = ".transient"
_MESSAGE = re.compile(r"(?P<stamp>\d{20})\.(?P<producer>[0-9a-z-]+)\.(?P<deliveries>\d+)")

# Names a queue's listing hands out before it is read again. A guess: at 64 a backlog of 6000 messages costs about
# 0.1 ms of listing per message, and a message that another process gives back waits behind at most 64 others.
_READY_NAMES = 64

_NAME_MAX = 200  # bytes; file systems allow 255, and a digest must still fit behind


@dataclass(frozen=True, slots=True)
class Leased:
    """A message this process holds. ``tag`` names the lease; ``data`` is None if it is no file with our name."""

    tag: str
    data: bytes | None
    redelivered: bool


@dataclass(frozen=True, slots=True, order=True)
class Binding:
    """A queue's place in an exchange. ``pattern`` is a regular expression for topic exchanges, else None."""

    routing_key: str
    pattern: str | None
    queue: str


# POSIX locks belong to a process, not to a descriptor: closing any descriptor of a locked file drops the lock, and
# a second lock by the same process succeeds. So a process has one owner per folder, knows its own, and never opens
# their lock files again. That is why this registry is process-wide.
_owners: dict[tuple[int, int], "Owner"] = {}  # (st_dev, st_ino) of the folder
_process_lock = threading.RLock()


def join(root: Path) -> "Owner":
    """Return this process's owner in the broker folder ``root``, which is created if need be.

    Each call needs its `Owner.leave`.

    Raises:
        OSError: The folder cannot be made or written, or holds something else than a broker.
        PermissionError: The folder belongs to another user.
    """
    key = _prepare(root)
    with _process_lock:
        owner = _owners.get(key)
        if owner is None or not owner.is_intact():
            if owner is not None:
                owner.abandon()
            owner = _owners[key] = Owner(root, key)
        owner.users += 1
        return owner


def _prepare(root: Path) -> tuple[int, int]:
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = root.stat()
    if found.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "the folder belongs to another user", str(root))
    # Refused before its permissions are touched: safefs:///tmp is a slip. Content is looked at before the mark,
    # because another process may be making this folder just now, the mark first.
    is_used = any(root.iterdir()) or bool(found.st_mode & stat.S_ISVTX)
    if is_used and not (root / _MARK).exists():
        raise OSError(
            errno.ENOTEMPTY,
            "the folder is no message broker's, and others may use it; name a new or empty one",
            str(root),
        )
    if found.st_mode & 0o077:
        root.chmod(0o700)
    (root / _MARK).touch(mode=0o600)
    for part in ("queues", "leased", "wake", "exchanges", "dead"):
        (root / part).mkdir(mode=0o700, exist_ok=True)
    return found.st_dev, found.st_ino


def _forget_parents_owners() -> None:
    # The child holds none of its parent's locks. Its copies of the descriptors are closed here, which cannot drop
    # the parent's lock; a FIFO left open would go on swallowing wake-ups.
    global _process_lock
    _process_lock = threading.RLock()
    for owner in _owners.values():
        owner.abandon()
    _owners.clear()


os.register_at_fork(after_in_child=_forget_parents_owners)


class Wake:
    """A FIFO that becomes readable when there may be something new. Messages are never in it.

    It is read and written by `os.readv` and `os.writev`: in the place of `os.read` and `os.write` eventlet puts
    functions that wait until there is something to read, or room to write.
    """

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o600)
        self.path = path
        # Opened for writing too: a FIFO whose last writer leaves reports end-of-file for ever.
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        # Else a late `set` could write into whatever got the descriptor's number after `close`. Reentrant for
        # signal handlers.
        self._lock = threading.RLock()

    def set(self) -> None:
        """Make the FIFO readable. Thread: any."""
        with self._lock, contextlib.suppress(OSError):  # full means readable; closed means nobody waits
            os.writev(self.fd, [b"\0"])

    def clear(self) -> None:
        """Take back what was set so far."""
        with self._lock, contextlib.suppress(BlockingIOError):
            os.readv(self.fd, [bytearray(65536)])

    def wait(self, timeout: float) -> None:
        """Return when the FIFO is set, or after ``timeout`` seconds."""
        selector = selectors.PollSelector() if hasattr(selectors, "PollSelector") else selectors.SelectSelector()
        with selector:
            selector.register(self.fd, selectors.EVENT_READ)
            selector.select(timeout)

    def close(self) -> None:
        """Close the FIFO. Closing twice is allowed. Thread: any."""
        with self._lock:
            fd, self.fd = self.fd, -1
            if fd >= 0:
                os.close(fd)

    def forget_parents_lock(self) -> None:
        """After a fork: the thread that held the lock may be one that the child does not have."""
        self._lock = threading.RLock()


class Owner:
    """This process in one broker folder: what it writes, what it holds, and the lock that says it lives.

    Threads: every method may be called from any thread. After a fork the child must `join` again; in it, the
    parent's owner holds nothing and changes nothing.
    """

    def __init__(self, root: Path, key: tuple[int, int]) -> None:
        self.root = root
        self.key = key
        self.pid = os.getpid()
        self.users = 0
        self.id, self._lock_fd = _claim_identity(root / "leased")
        self.path = root / "leased" / self.id
        (self.path / _NEW).mkdir(mode=0o700)
        (self.path / _TRANSIENT).mkdir(mode=0o700)
        self._mutex = threading.Lock()
        self._last_stamp = 0
        self._ready: dict[str, deque[str]] = {}
        self._wakes: list[Wake] = []
        self._wake_numbers = itertools.count()

    @property
    def is_mine(self) -> bool:
        """Whether this process, not its parent, is the owner."""
        return self.pid == os.getpid()

    def is_intact(self) -> bool:
        """Whether the lock file still stands where others look for it."""
        return self._lock_fd >= 0 and _stands(self._lock_fd, self.path / _LOCK)

    def leave(self) -> None:
        """End one use. After the last one everything held is given back and the owner's place removed."""
        with _process_lock:
            self.users -= 1
            if self.users > 0 or not self.is_mine or self._lock_fd < 0:
                return
            _owners.pop(self.key, None)
            try:
                _dissolve(self.root, self.id)
            finally:
                self.abandon()

    def abandon(self) -> None:
        """Close the descriptors and leave the files to whoever finds them. In a child, the lock is not its own."""
        for wake in self._wakes:
            if not self.is_mine:
                wake.forget_parents_lock()
            wake.close()
        self._wakes.clear()
        fd, self._lock_fd = self._lock_fd, -1
        if fd >= 0:
            os.close(fd)

    def open_wake(self) -> Wake:
        """Return a new FIFO that producers set after each message. Close it with `close_wake`."""
        wake = Wake(self.root / "wake" / f"{self.id}.{next(self._wake_numbers)}")
        self._wakes.append(wake)
        return wake

    def close_wake(self, wake: Wake) -> None:
        """Close and remove a FIFO of this owner."""
        if wake in self._wakes:
            self._wakes.remove(wake)
            wake.close()
            wake.path.unlink(missing_ok=True)

    def put(self, queue: str, data: bytes) -> None:
        """Append a message: it is written and synced under another name, then appears whole.

        Raises:
            OSError: It could not be written. Nothing was added.
        """
        name = f"{self._stamp():020d}.{self.id}.0"
        temporary = self.path / _NEW / name
        folder = self._queue_folder(queue)
        try:
            _write(temporary, data)
            _rename_into(temporary, folder, name)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        _wake_all(self.root)

    def take(self, queue: str) -> Leased | None:
        """Lease the oldest message of a queue; None if there is none.

        Raises:
            OSError: The folder or the message cannot be read or written. Nothing was taken.
            MemoryError: The message does not fit in memory now; likewise.
        """
        encoded = _encode(queue)
        leases = self.path / encoded
        with self._mutex:
            for name in self._ready_names(encoded):
                with contextlib.suppress(FileNotFoundError):  # another consumer was first
                    (self.root / "queues" / encoded / name).rename(leases / name)
                    break
            else:
                return None
        match = _MESSAGE.fullmatch(name)
        data: bytes | None = None
        if match is not None:
            try:
                data = (leases / name).read_bytes()
            except IsADirectoryError:
                pass
            except BaseException:  # no descriptor, memory or disk just now: that says nothing about the message
                with self._mutex:
                    self._ready.pop(encoded, None)
                _give_back(self.root, leases / name)
                raise
        return Leased(f"{encoded}/{name}", data, match is not None and match["deliveries"] != "0")

    def settle(self, tag: str) -> bool:
        """Delete a leased message: its work is done. False if it is not leased (any more)."""
        if not self.is_mine:
            return False
        try:
            (self.path / tag).unlink()
        except FileNotFoundError:
            return False
        return True

    def give_back(self, tag: str) -> bool:
        """Put a leased message back in its old place, marked as delivered once. False if it is not leased."""
        if not self.is_mine:
            return False
        encoded, name = tag.split("/")
        with self._mutex:
            self._ready.pop(encoded, None)  # it is older than what the listing knows
        given = _give_back(self.root, self.path / encoded / name)
        _wake_all(self.root)
        return given

    def bury(self, tag: str, reason: str) -> None:
        """Move a leased message that cannot be read to ``dead/`` and say so in the log."""
        encoded, name = tag.split("/")
        grave = self.root / "dead" / encoded
        with contextlib.suppress(FileNotFoundError):
            _rename_into(self.path / tag, grave, name)
            logger.error("message %s cannot be read (%s); moved to %s", tag, reason, grave / name)

    def declare(self, queue: str, *, transient: bool) -> None:
        """Create a queue. A transient one is deleted when the last process that declared it ends."""
        folder = self._queue_folder(queue)
        folder.mkdir(mode=0o700, exist_ok=True)
        if transient:
            (self.path / _TRANSIENT / folder.name).touch(mode=0o600)

    def has(self, queue: str) -> bool:
        """Whether the queue exists."""
        return self._queue_folder(queue).is_dir()

    def size(self, queue: str) -> int:
        """Return the number of waiting messages; leased ones do not count."""
        return len(_listed(self._queue_folder(queue)))

    def purge(self, queue: str) -> int:
        """Delete the waiting messages and return their number; leased ones stay."""
        return _purge(self._queue_folder(queue))

    def delete(self, queue: str) -> None:
        """Delete a queue, its waiting messages and its bindings."""
        _delete_queue(self.root, _encode(queue))

    def bind(self, exchange: str, binding: Binding) -> None:
        """Keep a binding, for all processes. Binding twice is allowed."""
        line = json.dumps([binding.routing_key, binding.pattern, binding.queue])
        name = hashlib.sha256(line.encode()).hexdigest()
        temporary = self.path / _NEW / f"{name}.{uuid.uuid4().hex}"
        try:
            _write(temporary, line.encode())
            _rename_into(temporary, self.root / "exchanges" / _encode(exchange), name)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def unbind(self, exchange: str, binding: Binding) -> None:
        """Forget a binding. An unknown one is allowed."""
        for path, known in _bindings(self.root / "exchanges" / _encode(exchange)):
            if known == binding:
                path.unlink(missing_ok=True)

    def bindings(self, exchange: str) -> Sequence[Binding]:
        """Return what is bound to an exchange, by any process."""
        return sorted(
            (binding for _, binding in _bindings(self.root / "exchanges" / _encode(exchange))),
            key=lambda binding: (binding.queue, binding.routing_key),
        )

    def recover_dead(self) -> int:
        """Give back what dead processes held, and return how many processes were found dead.

        Raises:
            FileNotFoundError: This owner's own place is gone; nobody could see that it lives.
        """
        with _process_lock:
            if not self.is_mine:
                return 0
            if not self.is_intact():
                raise FileNotFoundError(
                    errno.ENOENT, "this process's lock file was removed", str(self.path / _LOCK)
                )
            own = {owner.id for owner in _owners.values()}
            return sum(_bury_owner(self.root, name) for name in _listed(self.root / "leased") if name not in own)

    def _queue_folder(self, queue: str) -> Path:
        return self.root / "queues" / _encode(queue)

    def _stamp(self) -> int:
        with self._mutex:
            # The wall clock orders messages across processes and reboots; within a process it must not step back.
            self._last_stamp = max(time.time_ns(), self._last_stamp + 1)
            return self._last_stamp

    def _ready_names(self, encoded: str) -> Iterator[str]:
        ready = self._ready.get(encoded)
        while True:
            if not ready:
                ready = self._ready[encoded] = deque(_oldest(self.root / "queues" / encoded))
                if not ready:
                    return
                (self.path / encoded).mkdir(mode=0o700, exist_ok=True)
            yield ready.popleft()


def _claim_identity(leased: Path) -> tuple[str, int]:
    # Until the lock is held, another process may take the new place for a dead one and remove it: then try again.
    while True:
        name = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        (leased / name).mkdir(mode=0o700)
        fd = _try_lock(leased / name)
        if fd is not None:
            return name, fd


def _try_lock(place: Path) -> int | None:
    """Return a descriptor holding the lock of ``leased/<owner>``; None if its owner lives or the place is gone."""
    try:
        fd = os.open(place / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held it before may have removed the file: a lock on what nobody can find proves nothing.
        if _stands(fd, place / _LOCK):
            return fd
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            os.close(fd)
            raise
    os.close(fd)
    return None


def _stands(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _bury_owner(root: Path, name: str) -> bool:
    fd = _try_lock(root / "leased" / name)
    if fd is None:
        return False
    try:
        count = _dissolve(root, name)
        if count:
            logger.warning(
                "process %s ended without acknowledging %d message(s); they are queued again", name, count
            )
    finally:
        os.close(fd)
    return True


def _dissolve(root: Path, name: str) -> int:
    """Give back what an owner holds, then remove its place. The caller holds the owner's lock."""
    place = root / "leased" / name
    count = 0
    for folder in _listed(place):
        if folder != _LOCK:
            count += sum(_give_back(root, place / folder / message) for message in _listed(place / folder))
    for encoded in _listed(place / _TRANSIENT):
        _end_transient(root, name, encoded)
    for fifo in _listed(root / "wake"):
        if fifo.partition(".")[0] == name:
            (root / "wake" / fifo).unlink(missing_ok=True)
    # Nothing of value is left in the place. Errors: another process that found no lock file may be at it too.
    shutil.rmtree(place, ignore_errors=True)
    if count:
        _wake_all(root)
    return count


def _end_transient(root: Path, owner: str, encoded: str) -> None:
    """Delete a transient queue unless another owner declared it too."""

    def is_shared() -> bool:
        others = (other for other in _listed(root / "leased") if other != owner)
        return any((root / "leased" / other / _TRANSIENT / encoded).exists() for other in others)

    # The last owner's declaration goes after the queue: whoever dies in between leaves it to the next. Of two that
    # end at the same time the one that withdraws last sees no other.
    if is_shared():
        (root / "leased" / owner / _TRANSIENT / encoded).unlink(missing_ok=True)
    if not is_shared():
        _delete_queue(root, encoded)


def _give_back(root: Path, lease: Path) -> bool:
    match = _MESSAGE.fullmatch(lease.name)
    name = f"{match['stamp']}.{match['producer']}.{int(match['deliveries']) + 1}" if match else lease.name
    try:
        _rename_into(lease, root / "queues" / lease.parent.name, name)
    except FileNotFoundError:
        return False
    return True


def _rename_into(path: Path, folder: Path, name: str) -> None:
    """Rename ``path`` to ``folder/name``, creating the folder if a deleted queue took it away."""
    try:
        path.rename(folder / name)
    except FileNotFoundError:
        if not path.exists():
            raise
        folder.mkdir(mode=0o700, exist_ok=True)
        path.rename(folder / name)


def _oldest(folder: Path) -> list[str]:
    first = _listed(folder)
    return in_order(first, _listed(folder)) if first else []


def in_order(first: Sequence[str], second: Sequence[str], limit: int = _READY_NAMES) -> list[str]:
    """Return the oldest names that may be taken after two listings in a row, in order.

    A listing is no snapshot: it may miss a message that was added while it ran and show a later one. But whatever
    the first shows, the second shows with everything its producer had added before. So only names up to those of
    the first listing count, and no message overtakes an earlier one of its producer.
    """
    newest: dict[str, str] = {}
    for name in first:
        producer = _producer(name)
        newest[producer] = max(newest.get(producer, ""), name)
    return heapq.nsmallest(limit, (name for name in second if name <= newest.get(_producer(name), "")))


def _producer(name: str) -> str:
    return name.split(".")[1] if "." in name else name


def _listed(folder: Path) -> list[str]:
    """Return the names in a folder, hidden ones left out; none if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _wake_all(root: Path) -> None:
    for name in _listed(root / "wake"):
        # ENXIO: nobody reads, its process is dead. EAGAIN: full, so it is awake. A consumer also looks by itself.
        with contextlib.suppress(OSError):
            fd = os.open(root / "wake" / name, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(fd, b"\0")
            finally:
                os.close(fd)


def _purge(folder: Path) -> int:
    count = 0
    for name in _listed(folder):
        with contextlib.suppress(FileNotFoundError):
            (folder / name).unlink()
            count += 1
    return count


def _delete_queue(root: Path, encoded: str) -> None:
    for exchange in _listed(root / "exchanges"):
        for path, binding in _bindings(root / "exchanges" / exchange):
            if _encode(binding.queue) == encoded:
                path.unlink(missing_ok=True)
    folder = root / "queues" / encoded
    _purge(folder)
    with contextlib.suppress(OSError):  # gone; or a producer added a message, and the queue lives again
        folder.rmdir()


def _bindings(folder: Path) -> Iterator[tuple[Path, Binding]]:
    for name in _listed(folder):
        with contextlib.suppress(FileNotFoundError):
            routing_key, pattern, queue = json.loads((folder / name).read_text(encoding="utf-8"))
            yield folder / name, Binding(routing_key, pattern, queue)


def _encode(name: str) -> str:
    """Return a file name that no other queue name maps to. It has no dot, so it is never hidden."""
    encoded = quote(name, safe="").replace(".", "%2E")
    if len(encoded) <= _NAME_MAX:
        return encoded
    return f"{encoded[: _NAME_MAX - 66]}%%{hashlib.sha256(name.encode()).hexdigest()}"


def _write(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())  # else a power cut may leave an empty file under the final name
