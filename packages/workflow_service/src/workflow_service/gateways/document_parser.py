"""Turns files into text in a process of its own, which is ended when it takes too long or is no longer wanted."""

import asyncio
import json
import math
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from workflow_service.domain.document import DocumentText, Page, Span
from workflow_service.ports import UnreadableDocumentError

T = TypeVar("T")

_READER = "workflow_service.gateways.reading"
# The reader handles files from strangers: it gets what an interpreter needs to start, and no password of ours.
_PASSED_ON = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL")
_ANSWER_BYTES_PER_CHAR = 12  # the longest escape of one character in JSON: a surrogate pair, \\udXXX\\udXXX
_ANSWER_BYTES_PER_PAGE = 32
_CHUNK = 64 * 1024


class DocumentParser:
    """Parses PDF, DOCX, Markdown and plain text; fits the port of the same name.

    Args:
        timeout: Seconds a document may take, starting its process included.
        memory_bytes: Address space of that process.
        max_pages: Pages a document may have.
        max_chars: Characters its text may have.

    Each call starts one process and has ended it when it returns, however it returns. There is no state between
    calls: one instance serves any number of callers on any number of loops.
    """

    def __init__(
        self, *, timeout: float, memory_bytes: int, max_pages: int = 2000, max_chars: int = 5_000_000
    ) -> None:
        self._timeout = timeout
        self._memory_bytes = memory_bytes
        self._max_pages = max_pages
        self._max_chars = max_chars

    async def parse(self, content: bytes, media_type: str) -> DocumentText:
        """Return the text and its pages.

        Raises:
            UnreadableDocumentError: The file is damaged, encrypted, empty of text, too large, or took too long;
                the message is for the user.

        Cancellation: ends the process, waits until it is gone, then passes on.
        """
        try:
            async with asyncio.timeout(self._timeout):
                output, code = await self._read(content, media_type)
        except TimeoutError:
            raise UnreadableDocumentError(
                f"reading the document took longer than {self._timeout:g} seconds and was stopped"
            ) from None
        if code != 0:
            raise UnreadableDocumentError(_why_it_ended(code))
        return _document_text(output)

    async def _read(self, content: bytes, media_type: str) -> tuple[bytes, int]:
        """Run the reader on ``content`` and return its answer and exit code."""
        process = await self._start(media_type)
        try:
            _, output = await asyncio.gather(_send(process, content), self._receive(process))
            return output, await process.wait()
        finally:
            await _uninterrupted(_end(process))

    async def _start(self, media_type: str) -> Process:
        limits = (self._memory_bytes, math.ceil(self._timeout) + 1, self._max_pages, self._max_chars)
        # Interrupted half-way, create_subprocess_exec may leave a process that nobody knows; so it ends first.
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", _READER, media_type, *map(str, limits)),
                stdin=PIPE,
                stdout=PIPE,
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
                start_new_session=True,
            )
        )
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            await _uninterrupted(_end_when_started(starting))
            raise

    async def _receive(self, process: Process) -> bytes:
        """Return what the process writes, up to what a text within the limits can need."""
        assert process.stdout is not None
        bound = self._max_chars * _ANSWER_BYTES_PER_CHAR + self._max_pages * _ANSWER_BYTES_PER_PAGE + 1024
        output = bytearray()
        while chunk := await process.stdout.read(_CHUNK):
            output += chunk
            if len(output) > bound:
                raise UnreadableDocumentError(
                    "the process that reads documents wrote more than a document can hold"
                )
        return bytes(output)


async def _send(process: Process, content: bytes) -> None:
    assert process.stdin is not None
    if process.stdin.is_closing():
        return  # it has ended already, and uvloop refuses to write; its exit code tells why
    process.stdin.write(content)
    with suppress(BrokenPipeError, ConnectionResetError):  # it ended before it had read everything
        await process.stdin.drain()
    process.stdin.close()


async def _end_when_started(starting: asyncio.Future[Process]) -> None:
    await asyncio.wait([starting])
    if starting.exception() is None:
        await _end(starting.result())


async def _end(process: Process) -> None:
    """Kill the process and what it may have started, and wait until it is reaped and its pipes are closed."""
    assert process.stdin is not None
    assert process.stdout is not None
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own session, so its own group
    process.stdin.close()
    # A pipe whose reading was paused never shows its end, and wait() waits for that end on some loops.
    while await process.stdout.read(_CHUNK):
        pass
    await process.wait()


async def _uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Await ``work`` to its end although this task is cancelled meanwhile; then pass the cancellation on."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.result()


def _why_it_ended(code: int) -> str:
    if code == -signal.SIGXCPU:
        return "reading the document took too much processor time and was stopped"
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"the process that read the document {how}; the file is probably damaged, or needs too much memory"


def _document_text(output: bytes) -> DocumentText:
    try:
        answer = json.loads(output)
    except ValueError as error:
        raise UnreadableDocumentError("the process that read the document gave no answer") from error
    if "error" in answer:
        raise UnreadableDocumentError(answer["error"])
    pages = (Page(number, Span(start, end)) for number, (start, end) in enumerate(answer["pages"], start=1))
    return DocumentText(answer["text"], tuple(pages))
