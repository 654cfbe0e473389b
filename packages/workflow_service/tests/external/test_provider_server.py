"""The providers' server by itself: what goes wrong with it is told in words."""

import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from urllib.parse import urlsplit

import httpx
import pytest

from workflow_service.testing.providers import ProviderServer

COMMAND = (sys.executable, "-m", "workflow_service.testing.providers", "--port")
BOUND = 30.0  # seconds


def test_a_port_that_is_taken_is_told_in_a_line() -> None:
    """With what to do; no settings are printed that would lead to somebody else."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run([*COMMAND, str(port)], capture_output=True, text=True, timeout=BOUND, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"port {port} of 127.0.0.1 cannot be used: ")
    assert line.endswith("end who has it, or choose another with --port")
    ended = subprocess.run([*COMMAND, "99999"], capture_output=True, text=True, timeout=BOUND, check=False)
    assert len(ended.stderr.splitlines()) == 1


def test_a_client_that_goes_away_is_told_in_a_line(
    providers: ProviderServer, caplog: pytest.LogCaptureFixture, until_logged: Callable[[str], None]
) -> None:
    """So is a body that makes no sense; the server answers the next one."""
    port = urlsplit(providers.address).port
    head = b"POST /control HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{"
    with caplog.at_level(logging.WARNING):
        with closing(socket.create_connection(("127.0.0.1", port), BOUND)) as client:
            client.sendall(head)
            client.shutdown(socket.SHUT_RDWR)
        until_logged("POST /control: the client went away before its request was complete")
        with httpx.Client(base_url=providers.address, trust_env=False) as client:
            refused = client.post("/control", content=b"{")
            assert (refused.status_code, "the body makes no sense" in refused.json()["error"]) == (400, True)
            assert client.get("/control").status_code == 200
    assert not [record for record in caplog.records if record.exc_info]


@pytest.fixture
def until_logged(caplog: pytest.LogCaptureFixture) -> Callable[[str], None]:
    """Wait until something was logged by another thread."""

    def wait(text: str) -> None:
        deadline = time.monotonic() + BOUND
        while text not in caplog.text:
            assert time.monotonic() < deadline, caplog.text
            time.sleep(0.01)

    return wait
