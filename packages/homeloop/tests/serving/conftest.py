"""What the tests of serving share: a server under uvicorn, and further runtimes closed after each test."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from homeloop.serving import AsyncExecutor

APPS = Path(__file__).parent / "apps"

Serve = Callable[..., "AbstractContextManager[tuple[str, subprocess.Popen[str]]]"]
Notebook = Callable[..., str]


@pytest.fixture(autouse=True)
def no_further_runtimes(no_threads_left: None) -> Iterator[None]:
    """Close what calls on the default runtime's own thread were run on."""
    yield
    AsyncExecutor.close()


@pytest.fixture
def apps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Find the applications of these tests."""
    monkeypatch.syspath_prepend(str(APPS))


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Run an ASGI application under uvicorn, in a process of its own; yield its URL and the process."""

    @contextmanager
    def start(app: str, **environment: str) -> "Iterator[tuple[str, subprocess.Popen[str]]]":
        with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:  # clients wait until it accepts
            host, port = listening.getsockname()
            server = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", "--fd", str(listening.fileno()), "--no-access-log", app],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                pass_fds=[listening.fileno()],
                env={**os.environ, "PYTHONPATH": str(APPS), **environment},
            )
        try:
            yield f"http://{host}:{port}", server
        finally:
            server.kill()
            server.communicate()

    return start


@pytest.fixture
def notebook(tmp_path: Path) -> Notebook:
    """Run cells in a kernel of its own; return what they print."""

    def run(cells: str, **environment: str) -> str:
        homes = {name: str(tmp_path) for name in ("HOME", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
        ended = subprocess.run(
            [sys.executable, APPS / "notebook.py"],
            input=cells,
            cwd=tmp_path,
            env={**os.environ, **homes, **environment},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    return run
