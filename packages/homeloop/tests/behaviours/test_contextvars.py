"""Context variables: a call sees its caller's and brings changes back; nobody else's are in the way."""

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from homeloop import LoopRuntime

DEADLINE = 60.0  # seconds; tells a hang from an answer

user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


async def read() -> str:
    await asyncio.sleep(0)
    return user.get()


async def rename(new: str) -> str:
    await asyncio.sleep(0)
    before = user.get()
    user.set(new)
    return before


def test_f01_the_callers_context_is_visible(runtime: LoopRuntime) -> None:
    """Caller's context is visible inside."""

    def caller() -> str:
        user.set("caller")
        return runtime.run(read)

    assert contextvars.copy_context().run(caller) == "caller"


def test_f02_changes_come_back(runtime: LoopRuntime) -> None:
    """Changes made inside are visible to the caller afterwards."""

    def caller() -> tuple[str, str]:
        user.set("caller")
        return runtime.run(rename, "changed inside"), user.get()

    assert contextvars.copy_context().run(caller) == ("caller", "changed inside")
    assert user.get() == "nobody"


def test_f03_changes_of_a_failure_come_back(runtime: LoopRuntime) -> None:
    """... also when the coroutine fails."""

    async def rename_and_fail() -> None:
        await rename("changed inside")
        raise LookupError("boom")

    def caller() -> str:
        user.set("caller")
        with pytest.raises(LookupError, match="boom"):
            runtime.run(rename_and_fail)
        return user.get()

    assert contextvars.copy_context().run(caller) == "changed inside"


def test_f04_callers_do_not_see_each_other(runtime: LoopRuntime) -> None:
    """Two callers with different contexts do not see each other's values."""
    both = asyncio.Barrier(2)

    async def rename_together(new: str) -> tuple[str, str]:
        before = user.get()
        await both.wait()
        user.set(new)
        await both.wait()
        return before, user.get()

    def caller(name: str) -> tuple[str, str]:
        user.set(name)
        return runtime.run(rename_together, f"{name} inside", timeout=DEADLINE)

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(caller, ["ada", "bob"])) == [("ada", "ada inside"), ("bob", "bob inside")]


def test_f05_the_first_callers_context_does_not_stay(runtime: LoopRuntime) -> None:
    """First caller's context does not leak into later callers through the loop thread."""

    def first_caller() -> None:
        user.set("first")
        runtime.run(rename, "first inside")

    first = threading.Thread(target=first_caller)
    first.start()
    first.join(DEADLINE)
    assert runtime.run(read) == "nobody"
    assert runtime.submit(read).result(DEADLINE) == "nobody"


def test_f06_submit_carries_the_context_in(runtime: LoopRuntime) -> None:
    """submit() carries the caller's context in."""

    def caller() -> tuple[str, str]:
        user.set("caller")
        seen = runtime.submit(rename, "changed inside").result(DEADLINE)
        return seen, user.get()

    # Nobody waits for what was submitted, so nothing changes behind the caller's back.
    assert contextvars.copy_context().run(caller) == ("caller", "caller")


def test_changes_may_be_kept_inside(loop_factory) -> None:
    """With propagate_context=False a runtime's calls see their caller's context and leave it alone."""

    def caller(runtime: LoopRuntime) -> list[str]:
        user.set("caller")
        return [
            runtime.run(rename, "run inside"),
            user.get(),
            asyncio.run(runtime.arun(rename, "arun inside")),
            user.get(),
        ]

    with LoopRuntime(name="private", loop_factory=loop_factory, propagate_context=False) as runtime:
        assert contextvars.copy_context().run(caller, runtime) == ["caller"] * 4
