"""A5: what a loop's life made fail is tried again, at most three times; nothing else is."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from homeloop import default_runtime
from homeloop.errors import CallTimeoutError
from homeloop.serving import AsyncExecutor, Retry

SOON = Retry(backoff=0.001)


async def nothing() -> None:
    pass


async def on_a_closed_loop() -> None:
    """Event loop is closed."""
    loop = asyncio.new_event_loop()
    loop.close()
    loop.call_soon(print)


async def loop_beside_a_running_one() -> None:
    """Cannot run the event loop while another loop is running."""
    loop = asyncio.new_event_loop()
    work = nothing()
    try:
        loop.run_until_complete(work)
    finally:
        work.close()
        loop.close()


async def loop_that_runs_already() -> None:
    """This event loop is already running."""
    work = nothing()
    try:
        asyncio.get_running_loop().run_until_complete(work)
    finally:
        work.close()


FAULTS = {fault.__doc__: fault for fault in (on_a_closed_loop, loop_beside_a_running_one, loop_that_runs_already)}


class Flaky:
    """Fails so many times, then answers; counts its calls."""

    def __init__(self, fault: Callable[[], Awaitable[object]], times: int) -> None:
        self.fault = fault
        self.times = times
        self.calls = 0

    async def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.times:
            await self.fault()
        return self.calls


@pytest.mark.parametrize("message", FAULTS)
def test_a5_lifecycle_faults_are_tried_again(message: str, caplog: pytest.LogCaptureFixture) -> None:
    """The documents' three errors are tried again, up to three calls; each failure is logged with its cause."""
    flaky = Flaky(FAULTS[message], 2)
    assert AsyncExecutor.run_async(flaky, retry=SOON) == 3
    told = [each for each in caplog.records if each.name == "homeloop.serving"]  # not what earlier tests left
    first, second = (record.getMessage() for record in told)
    said = message.rstrip(".")
    assert first.startswith(f"attempt 1 of 3 at Flaky failed, another follows: RuntimeError: {said} [LOOP")
    assert second.startswith("attempt 2 of 3 ")
    assert all(record.levelno == logging.WARNING for record in told)


@pytest.mark.parametrize("message", FAULTS)
def test_a5_the_last_error_surfaces_with_its_traceback(message: str, caplog: pytest.LogCaptureFixture) -> None:
    """After three calls the error is raised as it is; its traceback ends where it was raised."""
    flaky = Flaky(FAULTS[message], 9)
    with pytest.raises(RuntimeError, match=message.rstrip(".")) as told:
        AsyncExecutor.run_async(flaky, retry=SOON)
    assert flaky.calls == 3
    names = [entry.name for entry in told.traceback]
    assert names.index("test_a5_the_last_error_surfaces_with_its_traceback") < names.index(
        FAULTS[message].__name__
    )
    assert "attempt 3 of 3 at Flaky failed, the last one" in caplog.text


@pytest.mark.parametrize("message", FAULTS)
def test_a5_a_users_own_error_of_the_same_words_is_not(message: str, caplog: pytest.LogCaptureFixture) -> None:
    """The words decide nothing: what the program itself raises is raised at once."""

    async def own_words() -> None:
        raise RuntimeError(message.rstrip("."))

    flaky = Flaky(own_words, 9)
    with pytest.raises(RuntimeError):
        AsyncExecutor.run_async(flaky, retry=SOON)
    assert flaky.calls == 1
    assert not caplog.records


@pytest.mark.parametrize(
    "error", [ValueError("bad"), TimeoutError(), ConnectionError(), asyncio.CancelledError(), SystemExit(3)]
)
def test_a5_no_other_error_is_tried_again(error: BaseException) -> None:
    """Whatever else is raised reaches the caller as the same object after one call."""

    async def fail() -> None:
        raise error

    flaky = Flaky(fail, 9)
    with pytest.raises(type(error)) as told:
        AsyncExecutor.run_async(flaky, retry=SOON)
    assert told.value is error
    assert flaky.calls == 1


def test_a5_switched_off_the_function_is_called_once() -> None:
    """``retry=None`` is for work that must not be done twice."""
    flaky = Flaky(on_a_closed_loop, 1)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        AsyncExecutor.run_async(flaky, retry=None)
    assert flaky.calls == 1


def test_a5_a_client_of_a_finished_loop_recovers(site: Any, script: Any) -> None:
    """The fault itself: a client kept in a module, whose connection died with the loop of ``asyncio.run``."""
    ended = script(
        """
        import asyncio, os
        import httpx
        from homeloop.serving import AsyncExecutor

        client = httpx.AsyncClient()

        async def get():
            return (await client.get(os.environ["URL"])).json()

        print(asyncio.run(get()), AsyncExecutor.run_async(get))
        AsyncExecutor.run_async(client.aclose)
        """,
        timeout=60.0,
        URL=f"{site.url}/",
    )
    assert (ended.returncode, ended.stdout) == (0, "ok ok\n"), ended.stderr
    assert (
        "attempt 1 of 3 at get failed, another follows: RuntimeError: Event loop is closed [LOOP101"
        in ended.stderr
    )


def test_a5_pauses_double_and_are_spread() -> None:
    """Between a half and the whole of the backoff, of twice that, of four times, and never above the limit."""
    retry = Retry(attempts=9, backoff=0.1, max_backoff=0.3)
    for attempt, most in ((1, 0.1), (2, 0.2), (3, 0.3), (8, 0.3)):
        pauses = {retry._pause(attempt) for _ in range(50)}
        assert most / 2 <= min(pauses) < max(pauses) <= most
    assert Retry(attempts=5000)._pause(4000) <= 2.0, "no number is too great"


def test_a5_the_timeout_spans_all_attempts() -> None:
    """A pause is cut off by the call's timeout."""
    flaky = Flaky(on_a_closed_loop, 9)
    with pytest.raises(CallTimeoutError):
        AsyncExecutor.run_async(flaky, timeout=2, retry=Retry(backoff=60, max_backoff=60))
    assert flaky.calls == 1
    assert default_runtime().statistics().in_flight == 0


def test_a5_options_are_checked() -> None:
    """Fewer than one attempt and negative times are refused."""
    for wrong in ({"attempts": 0}, {"backoff": -1}, {"max_backoff": -0.1}):
        with pytest.raises(ValueError, match="must be at least"):
            Retry(**wrong)  # type: ignore[arg-type]


def test_a5_each_item_of_a_batch_is_tried_again() -> None:
    """`map_async` retries the item, not the batch."""
    calls: dict[int, int] = {}

    async def flaky(item: int) -> int:
        calls[item] = calls.get(item, 0) + 1
        if item == 2 and calls[item] < 3:
            await on_a_closed_loop()
        return item

    assert AsyncExecutor.map_async(flaky, range(4), retry=SOON) == [0, 1, 2, 3]
    assert calls == {0: 1, 1: 1, 2: 3, 3: 1}
