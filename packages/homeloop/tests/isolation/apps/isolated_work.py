"""Work for the tiers: functions that another process can import."""

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

from homeloop.errors import CallTimeoutError

tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")
steps: list[str] = []  # of clean-ups, in this process
tasks: list["asyncio.Task[Any]"] = []  # kept alive on purpose


async def exit_in_a_task(code: int) -> None:
    """Do as a node of a graph that leaves the program."""

    async def leave() -> None:
        sys.exit(code)

    await asyncio.create_task(leave())


async def identity(thing: object) -> object:
    await asyncio.sleep(0)
    return thing


class Rebuilt:
    """Knows the thread where it was rebuilt, and weighs something."""

    def __init__(self, size: int) -> None:
        self.load = bytes(size)
        self.thread = 0

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, thread=threading.get_ident())


async def make_rebuilt(size: int) -> Rebuilt:
    return Rebuilt(size)


async def take(first: object, second: object = None, client: object = None) -> object:
    return first, second, client


async def are_same(first: object, second: dict[str, object], other: object) -> bool:
    return first is second["it"] is other


def rebuild_in(pid: int) -> object:
    if os.getpid() != pid:
        raise ValueError("rebuilt elsewhere")
    return Fussy()


class Fussy:
    """Can only be rebuilt in the process that it comes from."""

    def __reduce__(self) -> Any:
        return rebuild_in, (os.getpid(),)


async def return_fussy() -> Fussy:
    return Fussy()


async def return_deep_lock() -> object:
    return [1, {"lock": threading.Lock()}]


class Caller:
    """An object with an async ``__call__``."""

    async def __call__(self, thing: object) -> object:
        return await identity(thing)


class Waiter:
    """An object whose async ``__call__`` takes nothing."""

    async def __call__(self) -> int:
        return 1


class Counter:
    """An object whose ``__call__`` is an async generator."""

    async def __call__(self) -> AsyncGenerator[int]:
        yield 1


def answer_at_once() -> int:
    return 1


def plain(thing: object) -> object:
    return thing


async def facts() -> tuple[bool, bool, bool]:
    """In a real task: current_task, timeout and TaskGroup work."""
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        child = group.create_task(identity(1))
    return (
        asyncio.current_task() is not None,
        child.result() == 1,
        isinstance(asyncio.current_task(), asyncio.Task),
    )


async def use_anyio() -> list[object]:
    import anyio
    import sniffio

    with anyio.move_on_after(0.01) as scope:
        await anyio.sleep(10)
    return [sniffio.current_async_library(), scope.cancelled_caught]


async def subprocess_output() -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "print('from below')", stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    return out.decode().strip()


async def in_thread(thing: object) -> object:
    return await asyncio.to_thread(plain, thing)


async def descriptors_of_a_program() -> list[str]:
    """What a program that is started here, as `os.system` does, has open."""
    listing = (
        "import os; paths = [f'/proc/self/fd/{each}' for each in os.listdir('/proc/self/fd')]; "
        "print(*(os.readlink(path) for path in paths if os.path.lexists(path)))"
    )
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-c", listing, stdout=subprocess.PIPE, close_fds=False
    )
    printed, _ = await started.communicate()
    return printed.decode().split()


async def where() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


async def load_the_page() -> None:
    await wait_for_ever()


async def clean_up_slowly(file: str) -> None:
    """Wait for ever; write, in its clean-up, two steps to a file."""
    try:
        await wait_for_ever()
    finally:
        for step in ("first", "second"):
            await asyncio.sleep(0.01)
            with open(file, "a") as out:
                out.write(f"{step}\n")


async def ignore_cancellation(seconds: float) -> str:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            continue
    return "done after all"


async def block(seconds: float) -> str:
    time.sleep(seconds)
    return "blocked"


async def block_until(file: str) -> str:
    """Block the loop until a file is there."""
    deadline = time.monotonic() + 50
    while not Path(file).exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return "blocked"


async def have_a_plan_b() -> str:
    try:
        async with asyncio.timeout(0.01):
            await wait_for_ever()
    except TimeoutError:
        return "plan b"
    raise AssertionError


# -- errors ------------------------------------------------------------------------------------------


class Refused(Exception):
    """An error with state of its own."""

    def __init__(self, what: str, code: int) -> None:
        super().__init__(what, code)
        self.what, self.code = what, code


class KeywordOnly(Exception):
    """An error that pickle cannot rebuild by itself."""

    def __init__(self, *, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.lock = threading.Lock()


class Abort(BaseException):
    """Not an Exception."""


async def refuse() -> None:
    try:
        raise KeyError("key")
    except KeyError as error:
        raise Refused("it", 7) from error


async def refuse_keyword_only() -> None:
    raise KeywordOnly(what="that")


async def refuse_locally() -> None:
    class Local(Exception):
        pass

    raise Local("from a function")


async def fail_in_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(refuse())


async def fail_twice() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(refuse())
        group.create_task(refuse_keyword_only())


async def raise_timeout() -> None:
    raise TimeoutError("my own")


async def raise_runtime_error() -> None:
    steps.append("called")
    raise RuntimeError("Event loop is closed for the weekend")


async def count_steps() -> int:
    return steps.count("called")


async def raise_stop_iteration() -> None:
    raise StopIteration(1)


async def return_exception() -> Exception:
    return ValueError("returned")


async def raise_cancelled() -> None:
    raise asyncio.CancelledError("by itself")


async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(10)


async def raise_named(name: str) -> None:
    raise {"SystemExit": SystemExit(3), "KeyboardInterrupt": KeyboardInterrupt(), "Abort": Abort("now")}[name]


# -- context -----------------------------------------------------------------------------------------


async def read_tenant() -> str:
    await asyncio.sleep(0)
    return tenant.get()


async def set_tenant(name: str) -> str:
    tenant.set(name)
    return await read_tenant()


async def read_user() -> str | None:
    import homeloop

    user = homeloop.current_user()
    return None if user is None else user.id


# -- what a tier must contain ------------------------------------------------------------------------


async def leak_tasks() -> str:
    """Leave tasks behind: one's own, one of a library, leftovers of gather."""
    tasks.append(asyncio.create_task(wait_for_ever(), name="mine"))
    import anyio

    group = anyio.create_task_group()
    await group.__aenter__()
    group.start_soon(wait_for_ever, name="anyio's")
    tasks.append(asyncio.gather(wait_for_ever(), wait_for_ever(), return_exceptions=True))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    return "leaked"


async def leak_stubborn(seconds: float) -> str:
    tasks.append(asyncio.create_task(ignore_cancellation(seconds), name="stubborn"))
    await asyncio.sleep(0)
    return "leaked"


async def leak_in_a_foreign_context() -> str:
    tasks.append(asyncio.create_task(wait_for_ever(), name="foreign", context=contextvars.Context()))
    await asyncio.sleep(0)
    return "leaked"


async def names_of_tasks() -> list[str]:
    return sorted(task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task())


async def exit_at_once(code: int) -> None:
    os._exit(code)


async def fork_and_wait() -> int:
    """Fork, as some libraries do; the child leaves at once."""
    child = os.fork()
    if child == 0:
        os._exit(5)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


async def fork_and_go_on(how: str) -> tuple[int, int]:
    """Fork; the child does something else than to leave. Tell the process and the child's exit code."""
    child = os.fork()
    if child:
        return os.getpid(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if how == "awaits":
        await asyncio.sleep(0)
    elif how == "exits":
        sys.exit(4)
    elif how == "fails":
        raise LookupError("in the child")
    return 0, 0


async def fork_and_go_on_in_a_task(how: str) -> tuple[int, int]:
    return await asyncio.create_task(fork_and_go_on(how))


async def fork_a_holder_and_die(pids: str) -> None:
    """Die while a forked child, which holds what this process had open, lives on."""
    child = os.fork()
    if child == 0:
        signal.pause()
    Path(pids).write_text(str(child))
    os.kill(os.getpid(), signal.SIGKILL)


async def report_with_a_holder_and_exit(pids: str, report: Callable[..., Awaitable[None]]) -> None:
    """Leave by itself, with the last words still on their way, while a forked child lives on."""
    child = os.fork()
    if child == 0:
        signal.pause()
    Path(pids).write_text(str(child))
    await report("last words", 99.0, "x" * 1_000_000)
    os._exit(7)


async def signal_then_wait(ready: str) -> None:
    """Write the process id to a file, and wait to be killed."""
    with open(ready + ".part", "w") as out:
        out.write(str(os.getpid()))
    Path(ready + ".part").rename(ready)
    await wait_for_ever()


async def wait_for_file(ready: str, release: str) -> str:
    """Write the process id to a file; wait for another file."""
    Path(ready + ".part").write_text(str(os.getpid()))
    Path(ready + ".part").rename(ready)
    while not Path(release).exists():
        await asyncio.sleep(0.005)
    return "released"


async def signal_then_block(ready: str, seconds: float) -> None:
    with open(ready + ".part", "w") as out:
        out.write(str(os.getpid()))
    Path(ready + ".part").rename(ready)
    time.sleep(seconds)


async def allocate(size: int) -> int:
    return len(bytearray(size))


async def open_descriptors() -> list[str]:
    """Tell what the descriptors of this process beyond the standard ones are."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            if int(number) > 2:
                found.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue
    return sorted(found)


# -- generators --------------------------------------------------------------------------------------


async def count_up(count: int, file: str | None = None) -> AsyncGenerator[tuple[int, str]]:
    """Yield numbers; a context variable and a time-out span the yields; tell of the end in a file."""
    task = asyncio.current_task()
    tenant.set("generator")
    try:
        async with asyncio.timeout(60):
            for number in range(count):
                assert asyncio.current_task() is task
                yield number, tenant.get()
    finally:
        await asyncio.sleep(0)
        if file is not None:
            with open(file, "a") as out:
                out.write("closed\n")


async def fail_after(count: int) -> AsyncGenerator[int]:
    for number in range(count):
        yield number
    raise Refused("the rest", count)


async def started_clean_up(ready: str, file: str) -> None:
    """Tell that it has begun, wait for ever, clean up."""
    Path(ready).touch()
    await clean_up_slowly(file)


async def clean_up_nothing(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def ignore_signals(seconds: float) -> None:
    """Block so that not even SIGTERM ends it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(seconds)


kept: list[object] = []


async def keep(size: int) -> None:
    kept.append(bytearray(size))


async def return_lock() -> object:
    return threading.Lock()


async def slow_descriptors(seconds: float) -> list[str]:
    await asyncio.sleep(seconds)
    return await open_descriptors()


initialised = False


def initialise() -> None:
    global initialised
    initialised = True


async def preloaded() -> tuple[int, int, bool]:
    import isolated_preload

    return os.getpid(), isolated_preload.imported_in, initialised


async def ready_then_clean_up(ready: str, file: str) -> None:
    Path(ready + ".part").write_text(str(os.getpid()))
    Path(ready + ".part").rename(ready)
    await clean_up_slowly(file)


def initialise_as_told() -> None:
    """Do what `failing_preload` does."""
    import failing_preload  # noqa: F401 - for what it does


async def write_to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def clean_up_for_ever() -> None:
    """Leave a task whose clean-up starts the next one."""

    async def hydra() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            tasks.append(asyncio.create_task(hydra(), name="hydra"))

    tasks.append(asyncio.create_task(hydra(), name="hydra"))
    await asyncio.sleep(0)


def pass_gate(gate: str) -> None:
    """Block until somebody has opened the other end of a FIFO and closed it again."""
    with open(gate) as end:
        end.read()


async def raise_call_timeout() -> None:
    """Raise what a call of the work's own has raised."""
    raise CallTimeoutError("other()", 5.0, (), (), True)
