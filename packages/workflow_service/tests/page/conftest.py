"""A running service, a real browser, and a person who uses the page."""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from installation import STEP_BOUND, Installation, serve
from playwright.sync_api import BrowserContext, ConsoleMessage, FilePayload, Page, expect
from plugin import python_path_with_example

from workflow_service.testing.providers import ProviderServer, Script

RUN_BOUND = 60_000  # ms until an analysis must have ended
DEFINITIONS = Path(__file__).parent / "definitions"
MAX_UPLOAD = 256 * 1024  # bytes: small, so that the server's own refusal can be seen


@pytest.fixture(scope="session")
def providers() -> Iterator[ProviderServer]:
    """The weather and places services that workflows ask, on this machine."""
    with ProviderServer() as server:
        yield server


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, providers: ProviderServer) -> Iterator[Installation]:
    """The whole service on a home of its own: PostgreSQL, worker and API, as `up` starts them."""
    settings = {
        "WORKFLOW_MAX_UPLOAD_BYTES": str(MAX_UPLOAD),
        "WORKFLOW_DEFINITIONS": str(DEFINITIONS),
        "PYTHONPATH": python_path_with_example(tmp_path_factory.mktemp("site")),
    }
    with serve(tmp_path_factory.mktemp("service"), **settings, **providers.environment) as installation:
        yield installation


@dataclass(slots=True)
class Held:
    """Providers that do not answer yet: what asks them stays in the middle of its work."""

    service: Installation
    script: Script
    gate: threading.Event

    def start(self, location: str) -> str:
        """
        Start a run that asks them, and return its id once it does.

        A place that no other test asked for: what they answered once is kept. It ends well if they know the place.
        """
        self.script.called.clear()
        body = {"workflow_name": "emergency_contacts", "input_data": {"location": location}}
        response = self.service.api.post("/api/v1/workflows/execute", json=body)
        response.raise_for_status()
        assert self.script.called.wait(STEP_BOUND), "no worker took the run"
        return str(response.json()["run_id"])


@pytest.fixture
def held(service: Installation, providers: ProviderServer) -> Iterator[Held]:
    """Hold the providers' answers until the test, or its end, sets the gate."""
    held = Held(service, providers.script, threading.Event())
    providers.script.gate = held.gate
    yield held
    held.gate.set()
    providers.script.gate = None


@dataclass(slots=True)
class Person:
    """Somebody in front of the page, and what the browser saw meanwhile."""

    page: Page
    service: Installation
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, run: str | None = None) -> None:
        """Open the page with the key in its address, as `up` prints it."""
        self.go(f"run={run}" if run else "")
        expect(self.page.locator("#view-run" if run else "#samples button").first).to_be_visible()

    def go(self, where: str) -> None:
        """Load the page anew at a place of it, with the key."""
        self.page.goto("about:blank")  # else a new fragment alone would not load the page again
        self.page.goto(f"{self.service.address}#key={quote(self.service.key)}" + (f"&{where}" if where else ""))

    def open_form(self, workflow: str) -> None:
        """Open the form of a workflow."""
        self.go(f"workflow={workflow}")
        expect(self.page.locator("#workflow-form")).to_be_visible()

    def start(self) -> None:
        """Press the form's button."""
        self.page.get_by_role("button", name="Start", exact=True).click()

    def run_id(self) -> str:
        """The run that the page shows."""
        self.page.wait_for_url(re.compile(r"#run=[0-9a-f-]+$"))
        return self.page.url.rpartition("=")[2]

    def upload(self, name: str, content: bytes, media_type: str = "text/plain") -> None:
        """Choose a file by the button."""
        with self.page.expect_file_chooser() as chooser:
            self.page.get_by_text("Choose a file").click()
        chooser.value.set_files(FilePayload(name=name, mimeType=media_type, buffer=content))

    def wait_for_result(self) -> dict[str, Any]:
        """Wait until the analysis has ended well, and return what the service says it found."""
        expect(self.page.locator("#result")).to_be_visible(timeout=RUN_BOUND)
        result: dict[str, Any] = self.service.get(f"runs/{self.run_id()}/result")
        return result

    def tab_to(self, selector: str) -> None:
        """Press Tab until an element that matches has the focus."""
        for _ in range(80):
            self.page.keyboard.press("Tab")
            if self.page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
                return
        pytest.fail(f"Tab never reaches {selector}")

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
def person(service: Installation, context: BrowserContext) -> Iterator[Person]:
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
