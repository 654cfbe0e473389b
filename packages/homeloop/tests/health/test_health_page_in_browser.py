"""F2 to F5, the live page in a real browser: on a desk and a phone, light and dark, by keys alone."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, expect

from homeloop import HealthPage

pytestmark = pytest.mark.needs("chromium")

BOUND = 20.0  # seconds
FAULTY = Path(__file__).parents[4] / "examples" / "health" / "faulty.py"
Start = Callable[[str], "subprocess.Popen[str]"]

ATTACK = "<img src=x onerror='window.attacked = 1'>"
HOSTILE = f"""
import asyncio, sys
import homeloop

homeloop.default_monitor().start(0.2)
kept = []

async def leaf():
    await asyncio.Event().wait()

leaf.__qualname__ = {ATTACK!r}

async def start():
    kept.append(asyncio.create_task(leaf(), name={ATTACK!r}))

homeloop.label_tasks(lambda _: {{{ATTACK!r}: {ATTACK!r}}})
runtime = homeloop.LoopRuntime(name={ATTACK!r})
runtime.run(start)
print("ready", flush=True)
sys.stdin.read()
"""


AGAIN = """
import sys, threading, time
import homeloop
from homeloop import HealthThresholds, default_monitor
from homeloop._affinity import Affinity
from homeloop._events import CallbackFailed, LoopStalled, emit

default_monitor().thresholds = HealthThresholds(blocked=30.0)
default_monitor().start(0.2)
async def nothing(): pass
homeloop.run(nothing)
home = Affinity(1, 1, "asyncio.SelectorEventLoop", "homeloop")
for seconds in (1.0, 1.1, 1.2):
    emit(LoopStalled("homeloop", home, seconds, ("app.py:3 in handler",), None))
for _ in range(2):
    emit(CallbackFailed("boom()", home, "ValueError()"))
print("ready", flush=True)
sys.stdin.read()
"""


NO_LIMITS = """
import math, sys
import homeloop
from homeloop import HealthThresholds, default_monitor

default_monitor().thresholds = HealthThresholds(blocked=0.02, lag=math.inf, utilisation=math.inf)
default_monitor().start(0.2)
async def nothing(): pass
homeloop.run(nothing)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def kept_threads() -> tuple[str, ...]:
    """Those that Playwright writes screenshots with."""
    return ("asyncio_",)


@pytest.fixture
def window(context: BrowserContext) -> Iterator[Page]:
    """A page; afterwards no other host was asked, nobody was told the token, and nothing was complained of."""
    page = context.new_page()
    complaints: list[str] = []
    requests: list[Any] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    context.on("request", lambda request: requests.append(request))
    yield page
    assert complaints == []
    assert len({urlsplit(request.url).netloc for request in requests}) == 1
    assert not any("token=" in request.url.partition("#")[0] for request in requests)
    assert not any(request.headers.get("referer") for request in requests)


@pytest.fixture
def served(start_process: Start) -> Iterator[HealthPage]:
    """A page of other processes, served by this one, which has no loop of its own to block."""
    with HealthPage() as page:
        yield page


@pytest.fixture
def faulty(run_dir: Path) -> Iterator["subprocess.Popen[str]"]:
    """The program with four faults, which have been assessed twice."""
    with subprocess.Popen(
        [sys.executable, str(FAULTY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            while (line := process.stdout.readline()) != "assessed twice\n":
                assert line, "it has ended"
            yield process
        finally:
            process.kill()


@pytest.fixture(params=[(1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")], ids=str)
def looks(request: pytest.FixtureRequest, context_options: dict[str, Any]) -> None:
    """Each way the page is looked at."""
    width, scheme = request.param
    context_options.update(viewport={"width": width, "height": 860}, color_scheme=scheme)


def test_f3_each_fault_is_named_and_readable(
    looks: None, faulty: "subprocess.Popen[str]", served: HealthPage, window: Page, look_for_faults: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Verdict, loops, stacks, tasks with their origin, pools, incidents with what is known of them."""
    window.goto(served.address)
    expect(window.locator("#status")).to_have_text("Critical")
    for kind in ("Loop blocked", "Tasks piling up", "Pool exhausted", "Loop fault"):
        expect(window.locator("#findings .badge", has_text=kind)).to_be_visible()
    expect(window.locator("#findings")).to_contain_text("asyncio.to_thread()")
    blocked = window.locator("#loops tr", has_text="checkout")
    expect(blocked.locator(".state")).to_have_text(re.compile(r"blocked for \d"))
    expect(blocked.locator(".chart").first).to_have_attribute("data-high", "")
    expect(window.locator("#stacks li.stack").first).to_contain_text("checkout is blocked")
    expect(window.locator("#stacks .frames li").first).to_contain_text("in block")
    expect(window.locator("#trees summary", has_text="poll_for_ever")).to_contain_text("60 \u00d7")
    expect(window.locator("#trees summary", has_text="poll_for_ever")).to_contain_text("made at")
    expect(window.locator("#pools tr", has_text="orders")).to_contain_text("2 of 2")
    fault = window.locator("#incidents li", has_text="Queue").first
    expect(fault).to_contain_text("two-live-loops")
    for details in window.locator("details").all():
        details.locator("> summary").click()
    expect(fault.locator("dl")).to_contain_text("homeloop explain two-live-loops")
    expect(window.locator("#threads .name", has_text="checkout")).to_be_visible()
    assert look_for_faults(window) == []
    window.screenshot(path=tmp_path / "faults.png", full_page=True)


def test_f3_the_stopped_process_is_told_and_seen_to_go_on(
    faulty: "subprocess.Popen[str]", served: HealthPage, window: Page, look_for_faults: Any
) -> None:
    """What it told last stays, with a word that it is old."""
    window.goto(served.address)
    expect(window.locator("#status")).to_have_text("Critical")
    faulty.send_signal(signal.SIGSTOP)
    expect(window.locator("#state")).to_contain_text(f"Process {faulty.pid} is stopped")
    expect(window.locator("#state")).to_contain_text("how it was before")
    expect(window.locator("#findings .badge").first).to_be_visible()
    assert look_for_faults(window) == []
    faulty.send_signal(signal.SIGCONT)
    expect(window.locator("#state")).to_be_hidden()


def test_one_chooses_among_processes(
    faulty: "subprocess.Popen[str]", start_process: Start, served: HealthPage, window: Page
) -> None:
    """Each has its address, so going back leads back."""
    other = start_process(HOSTILE)
    window.goto(served.address)
    expect(window.locator("#process-list a")).to_have_count(2)
    first = min(faulty.pid, other.pid)
    expect(window.locator("#process-list [aria-current]")).to_contain_text(str(first))
    second = max(faulty.pid, other.pid)
    window.locator("#process-list a", has_text=str(second)).click()
    expect(window.locator("#process-line")).to_contain_text(f"Process {second}")
    assert window.url.endswith(f"#pid={second}")
    window.go_back()
    expect(window.locator("#process-line")).to_contain_text(f"Process {first}")
    os.kill(second, signal.SIGSTOP)
    window.locator("#process-list a", has_text=str(second)).click()
    expect(window.locator("#state")).to_have_text(re.compile(f"Process {second} is stopped .*lets it go on.$"))
    expect(window.locator("#told")).to_be_hidden()  # what is known is of another process
    os.kill(second, signal.SIGCONT)
    expect(window.locator("#process-line")).to_contain_text(f"Process {second}")


def test_a_fault_that_comes_again_and_again_is_told_once(
    start_process: Start, served: HealthPage, window: Page
) -> None:
    """With how often it came, and when it came last."""
    start_process(AGAIN)
    window.goto(served.address)
    expect(window.locator("#stacks li.stack", has_text="homeloop was blocked")).to_contain_text(
        "3 times, the last"
    )
    expect(window.locator("#incidents li", has_text="callback boom")).to_contain_text("2 times, the last")
    assert window.locator("#stacks li.stack", has_text="was blocked").count() == 1


def test_a_limit_that_is_infinite_has_no_line(start_process: Start, served: HealthPage, window: Page) -> None:
    """The finding is switched off: the charts are drawn without it."""
    start_process(NO_LIMITS)
    window.goto(served.address)
    for number in range(2):
        chart = window.locator("#loops .chart").nth(number)
        expect(chart.locator(".line")).to_have_attribute("d", re.compile(r"^M[\d. L]+$"))
        assert chart.get_attribute("data-high") is None
        assert chart.locator(".limit").get_attribute("d") is None


def test_what_a_process_tells_is_shown_as_text(start_process: Start, served: HealthPage, window: Page) -> None:
    """Names of coroutines, tasks, runtimes and labels may hold markup: nothing comes of it."""
    start_process(HOSTILE)
    window.goto(served.address)
    expect(window.locator("#loops .name")).to_have_text(ATTACK)
    expect(window.locator("#trees .code", has_text="onerror").first).to_have_text(ATTACK)
    expect(window.locator("#jobs")).to_contain_text(ATTACK)
    assert window.locator("#view-health img").count() == 0
    assert window.evaluate("() => window.attacked") is None


def test_by_keys_alone(faulty: "subprocess.Popen[str]", served: HealthPage, window: Page) -> None:
    """The token, past the head, to a loop's tasks, into a group of them; focus stays when figures change."""

    def press_until_focused(selector: str, key: str = "Tab") -> None:
        for _ in range(60):
            if window.evaluate("(selector) => document.activeElement.matches(selector)", selector):
                return
            window.keyboard.press(key)
        pytest.fail(f"{selector} cannot be reached")

    window.goto(served.address.partition("#")[0])
    expect(window.locator("#token")).to_be_focused()
    window.keyboard.type("not-the-right-token")
    window.keyboard.press("Enter")
    expect(window.locator("#token-error")).to_contain_text("wrong")
    expect(window.locator("#token")).to_be_focused()
    window.keyboard.type(served.token)
    window.keyboard.press("Enter")
    expect(window.locator("#status")).to_have_text("Critical")
    press_until_focused("#skip")
    window.keyboard.press("Enter")
    expect(window.locator("#verdict")).to_be_focused()
    press_until_focused("#loops tr:nth-child(2) button")
    window.keyboard.press("Enter")
    expect(window.locator(".tree h3", has_text="mails")).to_be_focused()
    press_until_focused(".tree:has(h3:focus) summary, .tree summary")
    window.keyboard.press("Enter")
    opened = window.locator(".tree details[open]")
    expect(opened.locator(".frames")).to_be_visible()
    seen = opened.locator(".hint").text_content()
    assert seen is not None
    expect(opened.locator(".hint")).not_to_have_text(seen)  # it was brought up to date, and
    expect(opened.locator("summary")).to_be_focused()
    press_until_focused("#pause", "Shift+Tab")
    window.keyboard.press("Space")
    expect(window.locator("#connection")).to_have_text("Paused")
    paused = opened.locator(".hint").text_content()
    window.wait_for_function("() => performance.now() > 0")
    window.keyboard.press("Space")
    expect(window.locator("#connection")).to_have_text("Live")
    assert paused is not None
    expect(opened.locator(".hint")).not_to_have_text(paused)


def test_the_token_is_nowhere_to_be_seen(start_process: Start, served: HealthPage, window: Page) -> None:
    """Neither in the address bar nor in the history, nor in any request's address."""
    start_process(HOSTILE)
    window.goto(served.address)
    expect(window.locator("#status")).to_have_text(re.compile("Healthy|Needs attention|Critical"))
    assert served.token not in window.url
    assert served.token not in (window.content())
    window.reload()
    expect(window.locator("#loops .name")).to_be_visible()


def test_a_page_that_is_gone_and_comes_again(start_process: Start, window: Page) -> None:
    """The browser says so, tries again, and goes on with what it was told before until then."""
    start_process(HOSTILE)
    first = HealthPage(token="correct-horse-battery")
    with first:
        window.goto(first.address)
        expect(window.locator("#connection")).to_have_text("Live")
    expect(window.locator("#connection")).to_contain_text("trying again")
    expect(window.locator("#loops .name")).to_be_visible()
    with HealthPage(port=first.port, token=first.token):
        expect(window.locator("#connection")).to_have_text("Live")
    with HealthPage(port=first.port):  # started anew, with another token
        expect(window.locator("#token-error")).to_contain_text("started anew")


def test_without_a_process_it_says_what_to_do(run_dir: Path, served: HealthPage, window: Page) -> None:
    """Nobody has a started monitor."""
    window.goto(served.address)
    expect(window.locator("#state")).to_contain_text("start_event_loop_monitoring()")
    assert os.listdir(run_dir) == []  # noqa: PTH208 - of names
