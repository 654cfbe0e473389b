"""Log lines of all libraries in one form, each with the run, the request and the user that it is about.

What is known of the work under way is kept in context variables (`bound`), so the lines of asyncpg, LangGraph or
httpx carry it too. Users appear under pseudonyms, and secrets are masked wherever they turn up.
"""

import asyncio
import hashlib
import hmac
import logging
import os
import re
import socket
import sys
import threading
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Literal
from uuid import UUID

import stamina.instrumentation
import structlog
from structlog.types import Processor

LogFormat = Literal["console", "json"]

_HIDDEN = "***"
_SHORTEST_SECRET = 6  # characters; masking shorter ones would eat common words
_PATTERNS = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}"), rf"\1 {_HIDDEN}"),
    (re.compile(r"(?<=://)([^\s:/@]*):[^\s@]+@"), rf"\1:{_HIDDEN}@"),
    (
        re.compile(r"(?i)\b(api[_-]?key|password|secret|token)(['\"]?\s*[=:]\s*['\"]?)[^\s'\",&}]{3,}"),
        rf"\1\2{_HIDDEN}",
    ),
)
_OWN_HANDLERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "celery", "celery.task", "celery.redirected")
"""Loggers that their programs give handlers of their own: theirs are taken off, so that lines come once."""

_QUIET = {"httpx": logging.WARNING, "httpcore": logging.WARNING, "alembic": logging.WARNING}
"""What tells of each request, or of nothing anyone asks for."""


@contextmanager
def bound(
    *, run_id: UUID | str | None = None, user_id: str | None = None, request_id: str | None = None
) -> Iterator[None]:
    """Let the lines logged in the body, and in tasks begun there, say what they are about.

    Args:
        run_id: The run that is worked on.
        user_id: Whose work it is; shown as a pseudonym.
        request_id: The HTTP request that is answered.
    """
    facts = {
        "run_id": None if run_id is None else str(run_id),
        "user": user_id,
        "request_id": request_id,
    }
    with structlog.contextvars.bound_contextvars(**{name: it for name, it in facts.items() if it is not None}):
        yield


def configure_logs(
    *, style: LogFormat, level: str, secrets: Iterable[str] = (), pseudonym_key: str | None = None
) -> None:
    """Send the lines of every logger of this process to standard error, in one form.

    Args:
        style: For people, or one JSON object a line.
        level: The lowest level that is shown, such as ``"INFO"``.
        secrets: What is masked wherever it turns up, besides what looks like a secret.
        pseudonym_key: Makes users' pseudonyms; the same key gives the same ones. None shows users' names.

    Thread: the one that sets up the process.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_place,
        _Pseudonyms(pseudonym_key),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        _Masking(secrets),
    ]
    renderer: list[Processor] = (
        [structlog.processors.EventRenamer("message"), structlog.processors.JSONRenderer(default=str)]
        if style == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False)]
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processors=renderer, foreign_pre_chain=shared, keep_exc_info=False)
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)
    for name in _OWN_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.NOTSET)
        logger.propagate = True
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    # Its own hook prints past all of the above: in another form, with users' names, with nothing masked.
    stamina.instrumentation.set_on_retry_hooks([_log_retry])


def _log_retry(details: stamina.instrumentation.RetryDetails) -> None:
    logging.getLogger("stamina").warning(
        "attempt %d failed, another follows in %.1f s: %r", details.retry_num, details.wait_for, details.caused_by
    )


_Event = MutableMapping[str, Any]  # Any: what structlog passes from processor to processor


def _add_place(_logger: object, _name: str, event: _Event) -> _Event:
    """Say which process, and which event loop or thread, a line comes from."""
    event["process"] = f"{socket.gethostname()}:{os.getpid()}"
    thread = threading.current_thread().name
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        event["thread"] = thread
    else:
        event["loop"] = thread
    return event


class _Pseudonyms:
    """Replaces users' names: lines of one user stay together, and nobody reads who it is."""

    def __init__(self, key: str | None) -> None:
        self._key = None if key is None else hashlib.sha256(key.encode()).digest()

    def __call__(self, _logger: object, _name: str, event: _Event) -> _Event:
        if self._key is not None and "user" in event:
            digest = hmac.digest(self._key, str(event["user"]).encode(), "sha256")
            event["user"] = f"u-{digest.hex()[:12]}"
        return event


class _Masking:
    """Masks secrets in every text of a line, tracebacks included."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = sorted({each for each in secrets if len(each) >= _SHORTEST_SECRET}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, _logger: object, _name: str, event: _Event) -> _Event:
        for name, value in event.items():
            if isinstance(value, str):
                event[name] = self._mask(value)
        return event

    def _mask(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(_HIDDEN, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text
