"""What a process that reads a document may use, enforced by the operating system."""

import os
import resource
import stat
import sys
from dataclasses import dataclass

_OPEN_FILES = 32  # standard streams, the interpreter's modules while they are imported, and room to spare

_LOG_ROOM = 1024 * 1024  # bytes this process, and others meanwhile, may add to a log file that standard error is


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a text may become, and what reading it may cost."""

    memory_bytes: int  # address space
    processor_seconds: int
    max_pages: int
    max_chars: int


def confine(limits: Limits) -> None:
    """Bind this process to its limits for good: the hard limits go down with the soft ones."""
    # macOS refuses RLIMIT_AS; there the time limit of the parent is what bounds a document.
    if sys.platform != "darwin":
        _lower(resource.RLIMIT_AS, limits.memory_bytes)
    _lower(resource.RLIMIT_CPU, limits.processor_seconds)
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _lower(resource.RLIMIT_FSIZE, _largest_file())
    _lower(resource.RLIMIT_CORE, 0)


def _lower(kind: int, value: int) -> None:
    _soft, hard = resource.getrlimit(kind)
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (bound, bound))


def _largest_file() -> int:
    # The limit counts from a file's start. Nothing but a log may be written; a pipe or terminal has no limit.
    errors = os.fstat(2)
    return errors.st_size + _LOG_ROOM if stat.S_ISREG(errors.st_mode) else 0
