"""What tests need of the machine: servers, a browser. A test that lacks one is skipped; in CI it fails."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

_SERVERS = {  # service: the variable that says where it is, and where it is without
    "postgres": ("TEST_DATABASE_URL", "postgresql://postgres@127.0.0.1:5432/postgres", 5432),
    "redis": ("TEST_REDIS_URL", "redis://127.0.0.1:6379/15", 6379),
    "rabbitmq": ("TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672//", 5672),
}
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_OPTIONAL = {"pgbouncer"}  # CI may go without
_PROBE_TIMEOUT = 2.0  # seconds
_PGBOUNCER = os.environ.get("TEST_PGBOUNCER") or shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
_PGBOUNCER_START = 10.0  # seconds
_PGBOUNCER_SETTINGS = """
[databases]
* = host={server.hostname} port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = {mode}
default_pool_size = {size}
ignore_startup_parameters = {ignored}
"""


def service_url(service: str) -> str:
    """Return where the tests find a server: its variable, else the standard local port."""
    variable, default, _ = _SERVERS[service]
    return os.environ.get(variable) or default


def chromium_path() -> str | None:
    """Return the browser: ``TEST_CHROMIUM``, else the first one on the PATH; None if there is none."""
    named = os.environ.get("TEST_CHROMIUM")
    return named or next(filter(None, map(shutil.which, _BROWSERS)), None)


@cache
def _absence(service: str) -> str | None:
    """Return why a service cannot be used; None when it can."""
    if service == "chromium":
        return None if chromium_path() else "no chromium on the PATH; install it or set TEST_CHROMIUM"
    if service == "pgbouncer":
        return None if _PGBOUNCER else "no pgbouncer on the PATH; install it or set TEST_PGBOUNCER"
    variable, _, standard_port = _SERVERS[service]
    where = urlsplit(service_url(service))
    host, port = where.hostname or "127.0.0.1", where.port or standard_port
    try:
        with closing(socket.create_connection((host, port), timeout=_PROBE_TIMEOUT)):
            return None
    except OSError as exc:
        return f"no {service} at {host}:{port} ({exc}); start one or set {variable}"


def pytest_configure() -> None:
    """Let Ctrl-C reach the processes that tests start: a shell's background jobs ignore it, and hand that down."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose needs are absent, before its fixtures start; fail it where CI promises them."""
    for marker in item.iter_markers("needs"):
        for service in marker.args:
            reason = _absence(service)
            if reason is None:
                continue
            if os.environ.get("CI") == "true" and service not in _OPTIONAL:
                pytest.fail(f"CI must offer it: {reason}", pytrace=False)
            pytest.skip(reason)


@pytest.fixture(scope="session")
def postgres_url() -> str:
    """A PostgreSQL superuser's database; make your own databases there, and drop them."""
    return service_url("postgres")


@pytest.fixture(scope="session")
def redis_url() -> str:
    """A Redis database that tests may empty."""
    return service_url("redis")


@pytest.fixture(scope="session")
def rabbitmq_url() -> str:
    """A RabbitMQ virtual host; make queues with names of your own, and delete them."""
    return service_url("rabbitmq")


@pytest.fixture
def pgbouncer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Start PgBouncer before a database: ``start(url, mode, sessions)`` returns the address through it.

    ``ignored`` are parameters of clients that it takes without a word; it refuses all others. Mark the
    test: ``@pytest.mark.needs("pgbouncer")``.
    """
    folder = tmp_path_factory.mktemp("pgbouncer")
    for each in (folder, *folder.parents[:2]):
        each.chmod(0o755)  # PgBouncer does not run as root
    with ExitStack() as stack:

        def start(url: str, mode: str, size: int, ignored: str = "") -> str:
            server = urlsplit(url)
            (folder / "users").write_text(f'"{server.username}" "{server.password or ""}"\n')
            with socket.create_server(("127.0.0.1", 0)) as free:
                port: int = free.getsockname()[1]
            settings = folder / f"{port}.ini"
            settings.write_text(
                _PGBOUNCER_SETTINGS.format(
                    server=server,
                    server_port=server.port or 5432,
                    port=port,
                    folder=folder,
                    mode=mode,
                    size=size,
                    ignored=ignored,
                )
            )
            stack.enter_context(_running_pgbouncer(settings, port))
            credentials = server.netloc.rpartition("@")[0]
            return server._replace(netloc=f"{credentials}@127.0.0.1:{port}").geturl()

        yield start


@contextmanager
def _running_pgbouncer(settings: Path, port: int) -> Iterator[None]:
    as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []
    command = [str(_PGBOUNCER), *as_nobody, str(settings)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + _PGBOUNCER_START
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), _PROBE_TIMEOUT).close()
                    break
                except ConnectionRefusedError:
                    assert process.poll() is None, process.communicate()[1]
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
            yield
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's executable."""
    path = chromium_path()
    assert path is not None, "mark the test: @pytest.mark.needs('chromium')"
    return path


_BROWSER_ARGUMENTS = (
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


@pytest.fixture(scope="module")
def browser(chromium: str) -> "Iterator[Browser]":
    """
    One browser for a module's tests; each test gets a context of its own.

    Not for the session: Playwright keeps a loop running on this thread, and other tests need it free.
    """
    from playwright.sync_api import sync_playwright  # here: most tests need no browser

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(_BROWSER_ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def context_options() -> dict[str, Any]:
    """Options of the browser's context; a test module or a parametrized test may say otherwise."""
    return {"viewport": {"width": 1280, "height": 860}, "reduced_motion": "reduce"}


@pytest.fixture
def context(browser: "Browser", context_options: dict[str, Any]) -> "Iterator[BrowserContext]":
    """A browser without memory."""
    context = browser.new_context(**context_options)
    context.set_default_timeout(15_000)
    yield context
    context.close()


_LOOKS = """() => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const parse = (color) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
        return { rgb: [r, g, b], opaque: a === 255 };
    };
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const luminance = (rgb) => {
        const [r, g, b] = rgb.map((c) => linear(c / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const color = parse(getComputedStyle(at).backgroundColor);
            if (color.opaque) return color.rgb;
        }
        return [255, 255, 255];
    };
    const found = [];
    let looked = 0;
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = texts.nextNode(); node; node = texts.nextNode()) {
        const element = node.parentElement;
        if (!node.data.trim() || !element.checkVisibility({ opacityProperty: true })) continue;
        if (element.closest(":disabled, noscript")) continue;
        looked += 1;
        const pair = [parse(getComputedStyle(element).color).rgb, ground(element)];
        const [low, high] = pair.map(luminance).sort((a, b) => a - b);
        const ratio = (high + 0.05) / (low + 0.05);
        if (ratio < 4.5) found.push(`faint, ${ratio.toFixed(2)}: ${node.data.trim().slice(0, 40)}`);
    }
    if (looked < 4) found.push(`only ${looked} texts`);
    for (const control of document.querySelectorAll("button, a[href], input, select, textarea, progress, meter")) {
        if (!control.checkVisibility()) continue;
        if (control.labels?.length || control.textContent.trim() || control.ariaLabel) continue;
        if (!control.getAttribute("aria-labelledby")) found.push(`without a name: ${control.outerHTML}`);
    }
    const over = document.documentElement.scrollWidth - window.innerWidth;
    if (over > 0) found.push(`${over} px wider than the window`);
    return found;
}"""


@pytest.fixture(scope="session")
def look_for_faults() -> Callable[[Any], list[str]]:
    """Return what is hard to read on a page of Playwright's: faint text, controls without a name, too wide."""
    return lambda page: list(page.evaluate(_LOOKS))
