"""
Run every test, in parts that run side by side; what fails is asked once more, alone, and named.

Exit status 0: all passed; 1: a test failed alone too, or a part broke, or more failed than accidents explain.
A test that passed only alone is unsteady: listed at the end, a defect of the test or of the code, to be mended.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from urllib.parse import urlsplit

ACCIDENTS = 5
"""So many failures of a part may be due to its neighbours; with more it is not asked again."""
TESTS_FAILED = 1
"""The exit status of pytest for failed tests: anything else, but 0, is a run that broke."""

REDIS_DATABASES = 16
"""As many has a Redis that nobody configured. Celery workers share keys in one, so each part gets its own."""

_LIBRARY = "packages/homeloop/tests"
_ADAPTERS = f"{_LIBRARY}/adapters"
_WORKERS = [f"{_ADAPTERS}/{each}" for each in ("pools", "recovery", "redis_transport")]
_SERVICE = "packages/workflow_service/tests"
_INSTALLED = (
    "acceptance",
    "broker",
    "cli",
    "faults",
    "local",
    "page",
)  # whole services, in processes of their own
PARTS = {  # the longest first; measured beside two others: 685, 531, 441, 323, 302, 257, 219, 196, 189 s
    "service": [f"{_SERVICE}/{each}" for each in _INSTALLED],
    "workers": _WORKERS,
    "adapters": [_ADAPTERS, *(f"--ignore={each}" for each in _WORKERS)],
    "application": [_SERVICE, *(f"--ignore={_SERVICE}/{each}" for each in (*_INSTALLED, "security"))],
    "isolation": [f"{_LIBRARY}/{each}" for each in ("isolation", "graphs", "pytest_plugin")],
    "runtime": ["tests", *(f"{_LIBRARY}/{each}" for each in ("behaviours", "callbacks", "resources", "runtime"))],
    "diagnosis": [f"{_LIBRARY}/{each}" for each in ("check", "database", "diagnosis", "guards", "http")],
    "serving": [f"{_LIBRARY}/{each}" for each in ("health", "serving")],
    "security": [f"{_SERVICE}/security"],
}


class Part:
    """Some folders of tests, and how they ended."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.status = TESTS_FAILED
        self.failed: list[str] = []
        server = urlsplit(os.environ.get("TEST_REDIS_URL") or "redis://127.0.0.1:6379")
        self._redis = server._replace(path=f"/{REDIS_DATABASES - 1 - list(PARTS).index(name)}").geturl()

    def run(self, *options: str) -> str:
        """Run the part in a process of its own, measured; return what it printed."""
        started = time.monotonic()
        state = Path(sys.prefix, "tests", self.name)  # its own: parts that end together would mix what failed
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "coverage", "run", "-m", "pytest", "-o", f"cache_dir={state}"),
                *(*options, *PARTS[self.name]),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TEST_REDIS_URL": self._redis},
            text=True,
            errors="replace",
            check=False,
        )
        self.status = ended.returncode
        self.failed = re.findall(
            r"^(?:FAILED|ERROR) ((?:packages|tests)/.+?)(?: - |$)", ended.stdout, re.MULTILINE
        )
        return f"\n##### {' '.join([self.name, *options])}: {time.monotonic() - started:.0f} s\n{ended.stdout}"

    def ask_again(self) -> list[str]:
        """Run what failed, alone; return the tests that pass so."""
        if self.status != TESTS_FAILED or not 0 < len(self.failed) <= ACCIDENTS:
            return []
        failed = self.failed
        print(self.run("--last-failed", "--last-failed-no-failures=none"), flush=True)
        return [each for each in failed if each not in self.failed]


def unnamed_folders() -> set[str]:
    """Return the folders with tests that no part names: they would not run."""
    there = {str(each.parent) for each in Path(_LIBRARY).glob("*/test_*.py")}
    return there - {path for paths in PARTS.values() for path in paths}


def main() -> int:
    """Run all parts; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, default=3, help="parts at the same time (default: %(default)s)")
    slots = parser.parse_args().slots
    os.chdir(Path(__file__).parent.parent)
    if unnamed := unnamed_folders():
        print(f"no part names {', '.join(sorted(unnamed))}: add them to PARTS in {__file__}")
        return 1
    parts = [Part(name) for name in PARTS]
    print(f"{', '.join(PARTS)}: {slots} at a time, each printed when it ends", flush=True)
    with ThreadPoolExecutor(slots) as pool:
        try:
            for ended in as_completed([pool.submit(part.run) for part in parts]):
                print(ended.result(), flush=True)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    for each in [each for part in parts for each in part.ask_again()]:
        print(f"UNSTEADY {each}: failed beside others, passed alone")
    broken = [f"{part.name} (exit status {part.status})" for part in parts if part.status != 0]
    print(f"not passed: {', '.join(broken)}" if broken else "all parts passed")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
