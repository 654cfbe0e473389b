"""A running service, a real browser, and a person who uses the page."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, FilePayload, Page, expect, sync_playwright

START_BOUND = 90.0  # seconds until the service must be up
RUN_BOUND = 60_000  # ms until an analysis must have ended
MAX_UPLOAD = 256 * 1024  # bytes: small, so that the server's own refusal can be seen

ARGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    # Nothing but the tests themselves causes traffic.
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass(frozen=True, slots=True)
class Service:
    """Where the service is and a key it accepts."""

    address: str
    key: str

    def get(self, path: str) -> Any:
        """Return the JSON that the service answers."""
        with httpx.Client(
            base_url=self.address, trust_env=False, headers={"Authorization": f"Bearer {self.key}"}
        ) as http:
            response = http.get(f"/api/v1/{path}")
            response.raise_for_status()
            return response.json()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The whole service on a home of its own: PostgreSQL, worker and API, as `up` starts them."""
    home = tmp_path_factory.mktemp("home")
    environment = {**os.environ, "WORKFLOW_MAX_UPLOAD_BYTES": str(MAX_UPLOAD)}
    command = [sys.executable, "-m", "workflow_service", "up", "--home", str(home), "--port", "0"]
    log = tmp_path_factory.mktemp("log") / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield wait_for_service(home, process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def wait_for_service(home: Path, process: "subprocess.Popen[bytes]", log: Path) -> Service:
    """Return the service once it says that it is ready; fail with its log when it ends or takes too long."""
    deadline = time.monotonic() + START_BOUND
    while time.monotonic() < deadline and process.poll() is None:
        try:
            connection = json.loads((home / "connection.json").read_text())
            ready = httpx.get(connection["address"] + "health/ready", trust_env=False, timeout=5)
        except (OSError, ValueError, httpx.TransportError):
            time.sleep(0.05)
            continue
        if ready.status_code == httpx.codes.OK:
            return Service(connection["address"], next(iter(connection["api_keys"].values())))
    pytest.fail(f"the service did not start (exit code {process.poll()}):\n{log.read_text()}", pytrace=False)


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    """One browser for all tests; each test gets a context of its own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGS))
        yield browser
        browser.close()


@dataclass(slots=True)
class Person:
    """Somebody in front of the page, and what the browser saw meanwhile."""

    page: Page
    service: Service
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, run: str | None = None) -> None:
        """Open the page with the key in its address, as `up` prints it."""
        fragment = f"key={quote(self.service.key)}" + (f"&run={run}" if run else "")
        self.page.goto("about:blank")  # else a new fragment alone would not load the page again
        self.page.goto(f"{self.service.address}#{fragment}")
        expect(self.page.locator("#view-run" if run else "#samples button").first).to_be_visible()

    def upload(self, name: str, content: bytes, media_type: str = "text/plain") -> None:
        """Choose a file by the button."""
        with self.page.expect_file_chooser() as chooser:
            self.page.get_by_text("Choose a file").click()
        chooser.value.set_files(FilePayload(name=name, mimeType=media_type, buffer=content))

    def wait_for_result(self) -> dict[str, Any]:
        """Wait until the analysis has ended well, and return what the service says it found."""
        expect(self.page.locator("#result")).to_be_visible(timeout=RUN_BOUND)
        run = re.search(r"#run=([0-9a-f-]+)$", self.page.url)
        assert run, self.page.url
        result: dict[str, Any] = self.service.get(f"runs/{run[1]}/result")
        return result

    def finding(self, number: int) -> Any:
        """The button of a finding, by its place in the list."""
        return self.page.locator("#findings > li").nth(number).locator("button")

    def highlighted(self) -> str:
        """The text that is highlighted as the place of the selected finding."""
        return "".join(self.page.locator("#contract mark.selected").all_text_contents())

    def list_samples(self) -> list[str]:
        """The names of the contracts that ship with the service."""
        return [sample["name"] for sample in self.service.get("samples")["samples"]]


@pytest.fixture
def context_options() -> dict[str, Any]:
    """Options of the browser's context; a test module or a parametrized test may say otherwise."""
    return {"viewport": {"width": 1280, "height": 860}, "reduced_motion": "reduce"}


@pytest.fixture
def context(browser: Browser, context_options: dict[str, Any]) -> Iterator[BrowserContext]:
    """A browser without memory."""
    context = browser.new_context(**context_options)
    context.set_default_timeout(15_000)
    yield context
    context.close()


@pytest.fixture
def person(service: Service, context: BrowserContext) -> Iterator[Person]:
    """A person; afterwards no other host was asked for anything and the browser had nothing to complain about."""
    person = Person(context.new_page(), service)

    def hear(message: ConsoleMessage) -> None:
        # Failed requests are the tests' own doing; what they must not cause is an error of the page's code.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            person.complaints.append(message.text)

    context.on("request", lambda request: person.requests.append(request.url))
    person.page.on("console", hear)
    person.page.on("pageerror", lambda error: person.complaints.append(str(error)))
    yield person
    assert person.complaints == []
    home = urlsplit(service.address).netloc
    assert {urlsplit(url).netloc for url in person.requests if not url.startswith("about:")} <= {home}
