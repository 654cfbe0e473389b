"""A module to preload that gives up root's rights, and is refused forks while the file NO_FORKS is there."""

import os
import resource
from pathlib import Path

if os.getuid() == 0:  # whom no limit on processes binds
    os.setuid(65534)

_, _MOST = resource.getrlimit(resource.RLIMIT_NPROC)


def _bound_processes() -> None:
    bound = 0 if Path(os.environ["NO_FORKS"]).exists() else _MOST
    resource.setrlimit(resource.RLIMIT_NPROC, (bound, _MOST))


os.register_at_fork(before=_bound_processes)
