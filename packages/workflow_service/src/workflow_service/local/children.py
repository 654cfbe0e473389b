"""A child process in a session of its own: started, watched and ended with a bound."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from workflow_service.local.errors import LocalError
from workflow_service.local.home import Home
from workflow_service.local.os_user import OsUser
from workflow_service.local.records import ProcessRecord, Stopping

HASTENED = 1.0
"""Seconds a signal is given once the user has lost patience, or there is nothing left to wait for."""

_KILL_BOUND = 10.0  # seconds the kernel may take to end a process after SIGKILL


@dataclass(frozen=True, slots=True)
class Command:
    """What to start. ``name`` is for people; ``stopping`` says how it is told to end."""

    name: str
    argv: tuple[str, ...]
    log: Path
    env: Mapping[str, str] = field(repr=False)  # holds keys and passwords
    stopping: Stopping = ((int(signal.SIGTERM), 5.0),)
    user: OsUser | None = None
    pass_fds: tuple[int, ...] = ()
    cwd: Path = Path("/")


class Child:
    """A started process. The supervisor calls ``collect`` whenever the kernel says that a child has ended."""

    def __init__(self, command: Command, process: "subprocess.Popen[bytes]", record: Path | None) -> None:
        self.command = command
        self.pid = process.pid
        self._process = process
        self._record = record
        self._ended = asyncio.Event()
        self.is_stopping = False

    @classmethod
    def start(cls, command: Command, home: Home) -> "Child":
        """Start the process, its output in its log, and record it in the home.

        Raises:
            LocalError: The system refused to start it.
        """
        user = command.user
        try:
            command.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(command.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:  # noqa: PTH123
                process = subprocess.Popen(
                    command.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=dict(command.env),
                    cwd=command.cwd,
                    pass_fds=command.pass_fds,
                    start_new_session=True,  # a terminal's Ctrl-C is for the supervisor alone
                    user=None if user is None else user.uid,
                    group=None if user is None else user.gid,
                    extra_groups=None if user is None else [],  # root's groups are not for it
                )
        except (OSError, subprocess.SubprocessError) as exc:
            raise LocalError(f"{command.name} could not be started: {exc}; tried {command.argv[0]}") from exc
        record = None
        with suppress(psutil.Error):  # already over: collect() will say so
            record = ProcessRecord.of(command.name, process.pid, command.argv, command.stopping).save(home)
        return cls(command, process, record)

    @property
    def returncode(self) -> int | None:
        """The exit code, minus the signal's number if one ended it; None while it runs."""
        return self._process.returncode

    def collect(self) -> bool:
        """Take the exit code if the process has ended; True the first time that is so."""
        if self._ended.is_set() or self._process.poll() is None:
            return False
        # What it started and left goes with it. The pid was free only since poll(), so the group is still its own.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        if self._record is not None:
            self._record.unlink(missing_ok=True)
        self._ended.set()
        return True

    async def wait(self) -> int:
        """Return the exit code once the process has ended. Cancellation: leaves it running."""
        await self._ended.wait()
        return self._process.returncode

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        self._process.send_signal(number)

    async def stop(self, hasten: asyncio.Event) -> None:
        """End the process and wait until it has ended.

        Args:
            hasten: Once set, each signal has a second at most. At the end comes SIGKILL for the whole group.
        """
        self.is_stopping = True
        for number, bound in self.command.stopping:
            if self._ended.is_set():
                return
            self._process.send_signal(number)
            await self._wait_ended(bound, hasten)
        if not self._ended.is_set():
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            await self._wait_ended(_KILL_BOUND, asyncio.Event())  # its record stays, should the kernel take longer

    async def _wait_ended(self, bound: float, hasten: asyncio.Event) -> None:
        ended, hurry = asyncio.create_task(self._ended.wait()), asyncio.create_task(hasten.wait())
        try:
            await asyncio.wait({ended, hurry}, timeout=bound, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await asyncio.wait({ended}, timeout=min(bound, HASTENED) if hurry.done() else 0)
        finally:
            ended.cancel()
            hurry.cancel()
            await asyncio.wait({ended, hurry})

    def __str__(self) -> str:
        return f"{self.command.name} (process {self.pid})"

    def obituary(self) -> str:
        """Say how the process ended, in one line."""
        code = self.returncode
        how = (
            f"was ended by {signal.Signals(-code).name}"
            if code is not None and code < 0
            else f"exited with {code}"
        )
        return f"{self} {how}"
