"""Inside a program that runs under ``homeloop doctor``: every error that comes to light is looked at."""

import json
import logging
import os
import subprocess
import sys
import threading
import traceback
import warnings
from pathlib import Path
from typing import Any

from homeloop import Event, add_instrument, diagnose, trace
from homeloop.diagnosis import Diagnosis, finalizing, from_fault

LOG = "HOMELOOP_DOCTOR_LOG"
QUIET = "HOMELOOP_DOCTOR_QUIET"
SITE = str(Path(__file__).parent / "_doctor_site")


class _Watch:
    """Listens to tracing and to all the ways in which Python tells of errors. Thread: any."""

    def __init__(self, path: str, quiet: bool) -> None:
        self._path, self._quiet = path, quiet
        self._told: set[tuple[object, ...]] = set()

    def notify(self, event: Event) -> None:
        if isinstance(event, trace.LoopFault):
            self.tell(from_fault(event), caught_before=True)

    def look(self, error: BaseException | None, channel: Any = "raised") -> None:
        if error is not None:
            found = diagnose(error, channel=channel)
            if found is not None:
                self.tell(found, caught_before=False)

    def tell(self, found: Diagnosis, *, caught_before: bool) -> None:
        """Append a finding to the log, in one write, and show it; each kind and place once per process."""
        key = (found.code, found.used_at and (found.used_at.file, found.used_at.line))
        if key in self._told:
            return
        self._told.add(key)
        told = {"pid": os.getpid(), "caught_before": caught_before, "finding": json.loads(found.to_json())}
        line = json.dumps({**told, "text": found.render()}) + "\n"  # in ASCII: whatever text, it is one line
        try:
            self._append(line.encode())
        except OSError:
            pass  # the doctor has ended before us, and its folder is gone
        if not self._quiet:
            try:
                os.write(2, f"\n{found.render(color=os.isatty(2))}\n".encode(errors="backslashreplace"))
            except OSError:
                pass  # nobody reads it; the log has it

    def _append(self, line: bytes) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


def watch() -> None:
    """Trace this process at the highest level and look at every error it tells of, if there is a doctor still."""
    path = os.environ.get(LOG)
    if not path:
        return
    watching = _Watch(path, bool(os.environ.get(QUIET)))
    try:
        Path(path).touch(0o600)  # the doctor sees that somebody was there
    except OSError:
        return
    trace.enable(3)
    add_instrument(watching)
    logging.getLogger("homeloop").addFilter(_is_not_shown)
    _hook_exceptions(watching)
    _hook_texts(watching)
    _hook_warnings(watching)
    _hook_processes()


def _is_not_shown(record: logging.LogRecord) -> bool:
    """Keep what the doctor shows by itself out of the program's log."""
    return not isinstance(getattr(record, "homeloop", None), trace.LoopFault)


def _hook_exceptions(watching: _Watch) -> None:
    uncaught, in_thread, unraisable = sys.excepthook, threading.excepthook, sys.unraisablehook

    def on_uncaught(kind: Any, error: BaseException, tb: Any) -> None:
        watching.look(error)
        uncaught(kind, error, tb)

    def on_thread(arguments: Any) -> None:
        watching.look(arguments.exc_value)
        in_thread(arguments)

    def on_unraisable(arguments: Any) -> None:
        watching.look(arguments.exc_value, "unraisable")
        unraisable(arguments)

    sys.excepthook, threading.excepthook, sys.unraisablehook = on_uncaught, on_thread, on_unraisable


def _hook_texts(watching: _Watch) -> None:
    """Look at every exception whose traceback is made into text: logging, print_exc, test tools, workers."""
    original = traceback.TracebackException.__init__

    def __init__(self: Any, exc_type: Any, exc_value: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        if isinstance(exc_value, BaseException) and kwargs.get("_seen") is None:
            watching.look(exc_value)
        original(self, exc_type, exc_value, *args, **kwargs)

    traceback.TracebackException.__init__ = __init__  # type: ignore[method-assign]


def _hook_processes() -> None:
    """Watch processes that are started with an environment of their own, too."""
    original = subprocess.Popen.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        environment = kwargs.get("env")
        if environment is not None:
            kwargs["env"] = _watched(dict(environment))
        original(self, *args, **kwargs)

    subprocess.Popen.__init__ = __init__  # type: ignore[method-assign]


def _watched(environment: dict[Any, Any]) -> dict[Any, Any]:
    paths = str(environment.get("PYTHONPATH") or "").split(os.pathsep)
    if SITE not in paths:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [SITE, *paths]))
    for name in (LOG, QUIET):
        if name in os.environ:
            environment[name] = os.environ[name]
    return environment


def _hook_warnings(watching: _Watch) -> None:
    """Look at who warns: a finalizer that finds its loop closed came too late."""
    shown = warnings.showwarning

    def showwarning(message: Any, category: Any, *args: Any, **kwargs: Any) -> None:
        found = finalizing(sys._getframe(1))  # pyright: ignore[reportPrivateUsage]
        if found is not None:
            watching.tell(found, caught_before=False)
        shown(message, category, *args, **kwargs)

    warnings.showwarning = showwarning
