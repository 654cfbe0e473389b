"""A8: SDKs that keep a client from the first use on, called again and again, from everywhere."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

APPS = Path(__file__).parent / "apps"
BOUND = 100.0  # seconds; tells a hang from an answer
CALLS = 200
NAMES = ("openai", "anthropic", "google-genai")


def _openai(request: Any) -> Any:
    message = {"role": "assistant", "content": f"answer to {request['messages'][0]['content']}"}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 0,
        "model": request["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def _anthropic(request: Any) -> Any:
    return {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "content": [{"type": "text", "text": f"answer to {request['messages'][0]['content']}"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }


def _genai(request: Any) -> Any:
    part = {"text": f"answer to {request['contents'][0]['parts'][0]['text']}"}
    return {
        "candidates": [{"index": 0, "finishReason": "STOP", "content": {"role": "model", "parts": [part]}}],
        "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
        "modelVersion": "m",
    }


@pytest.fixture
def services(site: Any) -> Any:
    """A server that speaks the three formats."""
    site.answers |= {
        "/v1/chat/completions": _openai,
        "/v1/messages": _anthropic,
        "/v1/models/m:generateContent": _genai,
    }
    return site


@pytest.mark.parametrize("name", NAMES)
def test_a8_threads_and_runs_in_turn(name: str, services: Any) -> None:
    """200 calls from 20 threads, 200 from `asyncio.run` in turn, a batch: all answered, none tried again."""
    ended = subprocess.run(
        [sys.executable, APPS / "sdks.py", name, services.url],
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    expected = f"threads {CALLS}\nasyncio.run in turn {CALLS}\na client per loop 10\nbatch {CALLS}\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, expected, "")
    assert sum(services.seen.values()) == 3 * CALLS + 10


@pytest.fixture
def tasks(services: Any, celery_environment: None, load_app: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The app's module, as the sender sees it."""
    monkeypatch.setenv("SITE", services.url)
    return load_app("sdk_tasks")


@pytest.mark.needs("redis")
@pytest.mark.parametrize(("pool", "concurrency"), [("prefork", 2), ("threads", 10)])
def test_a8_celery(pool: str, concurrency: int, tasks: Any, start_worker: Any, services: Any) -> None:
    """200 tasks of each SDK in one worker: each gets its own answer."""
    with start_worker("sdk_tasks", pool, concurrency):
        for sent in [[tasks.ask.delay(name, f"question {n}") for n in range(CALLS)] for name in NAMES]:
            answers = [result.get(timeout=BOUND) for result in sent]
            assert answers == [f"answer to question {n}" for n in range(CALLS)]
    assert sorted(services.seen.values()) == [CALLS] * 3
