"""The process that reads a document: it ends with the call, whatever happens, on any loop."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop

from workflow_service.domain.document import MEDIA_TYPES, DocumentText
from workflow_service.gateways.document_parser import DocumentParser
from workflow_service.ports import UnreadableDocumentError

DOCX, PLAIN = MEDIA_TYPES[".docx"], MEDIA_TYPES[".txt"]
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
WAIT = 10  # seconds
Children = Callable[[], list[psutil.Process]]


def run_on(loop: str, on_main_thread: bool, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run ``main()`` on a loop of this kind, on this thread or another."""
    results: list[Any] = []

    def run() -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            results.append(runner.run(main()))

    if on_main_thread:
        run()
    else:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join(WAIT * 3)
        assert not thread.is_alive()
    return results[0]


async def stopped_reader(new_children: Children) -> psutil.Process:
    """Wait for the reading process and stop it, so that it can neither answer nor end by itself."""
    async with asyncio.timeout(WAIT):
        while True:
            if children := new_children():
                children[0].send_signal(signal.SIGSTOP)
                return children[0]
            await asyncio.sleep(0.001)


@pytest.fixture(
    params=[(loop, where) for loop in LOOPS for where in (True, False)], ids=lambda p: f"{p[0]}-{p[1]}"
)
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]:
    """Run an async function on each kind of loop, on the main thread and on another."""
    loop, on_main_thread = request.param
    return lambda main: run_on(loop, on_main_thread, main)


Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]


def test_any_loop_reads_documents_side_by_side(run: Run, parser: DocumentParser, samples: Path) -> None:
    """One parser serves several calls at once on whatever loop they are."""

    async def main() -> list[DocumentText]:
        content = (samples / "services-agreement.docx").read_bytes()
        return await asyncio.gather(*(parser.parse(content, DOCX) for _ in range(3)))

    texts = run(main)
    assert len({document.text for document in texts}) == 1
    assert texts[0].text.startswith("SERVICES AGREEMENT")


def test_time_out_ends_the_process(run: Run, new_children: Children) -> None:
    """A document that takes too long is an error for its user, and its process is gone when it is raised."""

    async def main() -> None:
        parsing = asyncio.create_task(DocumentParser(timeout=0.5, memory_bytes=1024**3).parse(b"text", PLAIN))
        reader = await stopped_reader(new_children)
        with pytest.raises(UnreadableDocumentError, match=r"longer than 0\.5 seconds"):
            await parsing
        assert not reader.is_running()

    run(main)


def test_cancellation_ends_the_process(run: Run, parser: DocumentParser, new_children: Children) -> None:
    """A cancelled call is over only when its process is, and passes the cancellation on."""

    async def main() -> None:
        parsing = asyncio.create_task(parser.parse(b"text" * 1_000_000, PLAIN))
        reader = await stopped_reader(new_children)
        parsing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await parsing
        assert not reader.is_running()

    run(main)


def test_cancellation_at_any_moment_leaves_nothing(
    run: Run, parser: DocumentParser, new_children: Children
) -> None:
    """Whether the process is starting, reading, answering or ending: it never stays behind."""

    async def main() -> None:
        for turns in (0, 1, 2, 3, 5, 8, 20):
            parsing = asyncio.create_task(parser.parse(b"text", PLAIN))
            for _ in range(turns):
                await asyncio.sleep(0)
            parsing.cancel()
            parsing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await parsing
            assert new_children() == []

    run(main)


def test_a_killed_reader_is_an_error_with_a_reason(
    run: Run, parser: DocumentParser, new_children: Children
) -> None:
    """When the system kills the process, the user is told and the next call works."""

    async def main() -> str:
        parsing = asyncio.create_task(parser.parse(b"text", PLAIN))
        reader = await stopped_reader(new_children)
        reader.kill()
        with pytest.raises(UnreadableDocumentError, match="ended by SIGKILL"):
            await parsing
        return (await parser.parse(b"text", PLAIN)).text

    assert run(main) == "text"


def test_a_reader_that_ends_before_it_has_read_is_an_error(run: Run) -> None:
    """A process that cannot even start leaves the sender of a large document with an error, not waiting."""

    async def main() -> None:
        parser = DocumentParser(timeout=30, memory_bytes=1024**2)  # no interpreter gets by with 1 MiB
        with pytest.raises(UnreadableDocumentError, match="memory"):
            await parser.parse(b"text" * 1_000_000, PLAIN)

    run(main)


def test_memory_is_bounded(parser: DocumentParser) -> None:
    """A document that needs more than it may take is refused; with more memory, it gets to the next limit."""
    content = b"word " * 8_000_000
    with pytest.raises(UnreadableDocumentError, match="more than 96 MiB of memory"):
        asyncio.run(DocumentParser(timeout=30, memory_bytes=96 * 1024**2).parse(content, PLAIN))
    with pytest.raises(UnreadableDocumentError, match="more than 5,000,000 characters"):
        asyncio.run(parser.parse(content, PLAIN))


def test_the_reader_gets_no_secret(
    monkeypatch: pytest.MonkeyPatch, parser: DocumentParser, new_children: Children
) -> None:
    """A process that opens files from strangers does not know how to reach the database."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:password@host/name")

    async def main() -> dict[str, str]:
        parsing = asyncio.create_task(parser.parse(b"text", PLAIN))
        reader = await stopped_reader(new_children)
        environment = reader.environ()
        reader.send_signal(signal.SIGCONT)
        await parsing
        return environment

    assert "DATABASE_URL" not in asyncio.run(main())


def test_reader_whose_asker_is_gone_ends_silently() -> None:
    """A worker that is killed leaves its reader nobody to answer, which is no fault to log."""
    limits = (512 * 1024**2, 10, 10, 1000)
    reading, writing = os.pipe()
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "workflow_service.gateways.reading", PLAIN, *map(str, limits)],
        env=unmeasured,  # it may write no file, and coverage would complain of that
        stdin=subprocess.PIPE,
        stdout=writing,
        stderr=subprocess.PIPE,
    ) as reader:
        os.close(writing)
        os.close(reading)
        _, complaints = reader.communicate(b"text", timeout=WAIT)
    assert (reader.returncode, complaints) == (0, b"")
