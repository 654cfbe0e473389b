"""A running service, a real browser, and a person who uses the page."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from installation import Installation, serve
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, FilePayload, Page, expect, sync_playwright

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


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The whole service on a home of its own: PostgreSQL, worker and API, as `up` starts them."""
    with serve(tmp_path_factory.mktemp("service"), WORKFLOW_MAX_UPLOAD_BYTES=str(MAX_UPLOAD)) as installation:
        yield installation


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """One browser for a module's tests; each test gets a context of its own.

    Not for the session: Playwright keeps a loop running on this thread, and other tests need it free.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGS))
        yield browser
        browser.close()


@dataclass(slots=True)
class Person:
    """Somebody in front of the page, and what the browser saw meanwhile."""

    page: Page
    service: Installation
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
