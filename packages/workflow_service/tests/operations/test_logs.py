"""Log lines: one form for all loggers, with what they are about, and without secrets and names."""

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import stamina
from stamina import instrumentation

from workflow_service.logs import bound, configure_logs
from workflow_service.settings import Settings

SECRET = "s3cret-of-alice"
Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """Logs as JSON; returns what was logged. Afterwards logging is as before."""
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logs(style="json", level="INFO", secrets=[SECRET], pseudonym_key="db/one")
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    logging.captureWarnings(False)
    instrumentation.set_on_retry_hooks(None)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_lines_of_libraries_carry_the_run(lines: Lines) -> None:
    """What a library logs while a run is worked on names it, in the same task and in those it began; not after."""
    logger = logging.getLogger("some.library")
    with bound(run_id="run-1", user_id="alice"):
        logger.info("asked %s", "a host")
    logger.warning("later")
    during, after = lines()
    assert during["message"] == "asked a host"
    assert (during["run_id"], during["logger"], during["level"]) == ("run-1", "some.library", "info")
    assert during["user"].startswith("u-")
    assert "run_id" not in after
    assert "user" not in after


def test_users_have_pseudonyms(lines: Lines) -> None:
    """One user's lines have one pseudonym, another's another, and no line has the name."""
    for user in ("alice", "alice", "bob"):
        with bound(user_id=user):
            logging.getLogger("x").info("did something")
    one, again, other = (line["user"] for line in lines())
    assert one == again != other
    assert "alice" not in one


def test_what_is_tried_again_is_told_like_everything_else(
    lines: Lines, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the form of the other lines, of a run and a pseudonym, masked; and nowhere besides."""
    with bound(run_id="run-1", user_id="alice"):
        for attempt in stamina.retry_context(on=OSError, attempts=2, wait_initial=0, wait_jitter=0):
            with attempt:
                if attempt.num == 1:
                    raise OSError(f"refused {SECRET}")
    [line] = lines()
    assert line["message"] == "attempt 1 failed, another follows in 0.0 s: OSError('refused ***')"
    assert (line["run_id"], line["logger"], line["level"]) == ("run-1", "stamina", "warning")
    assert line["user"].startswith("u-")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "text",
    [
        f"the key {SECRET} was refused",
        "GET /?a=1 Authorization: Bearer abcdef0123456789",
        "cannot reach postgresql://carol:pa55-word@db/service",
        "api_key=AIzaSyA-1234567890",
        '{"password": "hunter22"}',
    ],
)
def test_secrets_are_masked(lines: Lines, text: str) -> None:
    """Neither known secrets nor what looks like one gets into a line, also not by way of a traceback."""
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("x").exception("failed: %s", text)
    [line] = lines()
    for secret in (SECRET, "abcdef0123456789", "pa55-word", "AIzaSyA-1234567890", "hunter22"):
        assert secret not in json.dumps(line)
    assert "***" in line["message"]
    assert "ValueError" in line["exception"]


def test_settings_tell_their_secrets() -> None:
    """Keys, and passwords within addresses, as they are written and as they are meant."""
    settings = Settings(
        database_url="postgresql://u:a%40b-cdef@h/d", broker_url="redis://:other-one@h", api_keys={"alice": SECRET}
    )
    assert {SECRET, "a%40b-cdef", "a@b-cdef", "other-one"} <= settings.secrets()
    assert settings.pseudonym_key == "h/d", "a new password changes no pseudonym"
