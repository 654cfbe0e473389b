"""``homeloop page``: the event loops of this user's processes, live in a browser."""

import argparse
import signal
import sys
import threading
import webbrowser
from typing import TYPE_CHECKING

from homeloop import HealthPage, ask_process

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # pyright: ignore[reportPrivateUsage]


def add_to(commands: "Commands") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "page",
        help="watch the event loops of your processes in a browser",
        description=(
            "Serve a page that shows your processes that have a started health monitor, live, until Ctrl-C. "
            "It prints the page's address, which has a token: keep that as you keep a password."
        ),
    )
    parser.add_argument("pid", nargs="?", type=int, metavar="PID", help="show this process first")
    parser.add_argument("--port", type=int, default=0, help="the port to listen on; a free one by default")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="NAME",
        help="a further host name under which it is reached; may be given again",
    )
    parser.add_argument("--open", action="store_true", help="open it in the browser of this machine")
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    page = HealthPage(pid=chosen.pid, host=chosen.host, port=chosen.port, names=chosen.name)
    try:
        if chosen.pid is not None:
            _refuse_unknown(chosen.pid)
        page.start()
    except (OSError, OverflowError) as error:
        sys.stderr.write(f"homeloop page: {error}\n")
        return 2
    with page:
        sys.stdout.write(f"{page.address}\n")
        sys.stdout.flush()
        if chosen.open:
            webbrowser.open(page.address)
        _wait_for_end()
    return 0


def _refuse_unknown(pid: int) -> None:
    """Raise ProcessLookupError if nobody can tell how the process is: better told now than on a page."""
    try:
        ask_process(pid)
    except TimeoutError:  # it may be stopped: the page tells that
        pass


def _wait_for_end() -> None:
    """Wait for SIGTERM; Ctrl-C raises KeyboardInterrupt."""
    over = threading.Event()

    def end(_signal: int, _frame: object) -> None:
        over.set()

    before = signal.signal(signal.SIGTERM, end)
    try:
        over.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
