"""Rules on where code runs: loops started, asked for or stopped in the wrong place."""

from typing import Any

from homeloop.diagnosis._chain import Link
from homeloop.diagnosis._codes import Kind
from homeloop.diagnosis._frames import LOOP_MODULES, NO_LOOP, Frame
from homeloop.diagnosis._judgement import Channel, Judgement, foreign, greenlets_active, inherited
from homeloop.diagnosis._reading import is_kind, is_loop, owner_loop

_NEEDS_RUNNING_LOOP = frozenset(("get_running_loop", "current_task", "all_tasks", "create_task", "timeout"))


def own_errors(link: Link, links: list[Link], channel: Channel) -> Judgement | None:
    """Ours: the guard of LoopLocal, and waits that would never end."""
    if link.is_kind("homeloop.errors.WrongLoopError"):
        return Judgement(
            Kind.TWO_LIVE_LOOPS, "high", "homeloop refused the call before the driver was touched", link
        )
    if link.is_kind("homeloop.errors.WrongThreadError", "homeloop.errors.DeadlockError"):
        return Judgement(Kind.SYNC_BRIDGE_DEADLOCK, "high", "homeloop refused to wait for its own thread", link)
    return None


def nested_run(link: Link, links: list[Link], channel: Channel) -> Judgement | None:
    """A loop was started where one runs: raised by the functions that start loops, and by nothing else."""
    last = link.last
    if last is None or not link.is_plain_runtime_error or not (_starts_loop(last)):
        return None
    if not (last.raised_here or last.native):
        return None
    target = last.owner if last.owner is not None and is_loop(last.owner) else None
    if inherited(target, target) or inherited(None, last.loop if last.loop is not NO_LOOP else None):
        evidence = "the running mark was inherited: the loop was made in the parent process"
        return Judgement(Kind.FORK_INHERITED, "high", evidence, link, target, target, None, last)
    # The functions that start a loop count as run by it; who called them is asked.
    caller = next((frame for frame in reversed(link.frames) if not frame.is_standard), last)
    current = None if caller.loop is NO_LOOP else caller.loop
    in_coroutine = any(frame.is_async for frame in link.frames)  # then a loop does run it, whichever
    if greenlets_active() and current is None and not in_coroutine:
        evidence = f"{last.function}() was refused, but no frame of this greenlet runs a loop"
        return Judgement(Kind.GREENLET_LOOP_COLLISION, "high", evidence, link, frame=last)
    evidence = f"{last.module}.{last.function}() raised because a loop was running on this thread"
    return Judgement(Kind.NESTED_RUN, "high", evidence, link, target, target, current, last)


def _starts_loop(frame: Frame) -> bool:
    if frame.module == "asyncio.runners":
        return frame.function == "run"
    if frame.module in LOOP_MODULES:
        return frame.function == "_check_running"
    if frame.module == "uvloop.loop":
        return frame.function in ("run_forever", "_run", "_check_running")
    if frame.module == "asgiref.sync":
        return frame.function == "__call__"
    return frame.module == "anyio._core._eventloop" and frame.function == "run"


def no_loop(link: Link, links: list[Link], channel: Channel) -> Judgement | None:
    """No current or running loop: raised by the policy, or by C code that was asked for the running loop."""
    last = link.last
    if last is None or not link.is_plain_runtime_error:
        return None
    if last.module in ("asyncio.events", "uvloop") and last.function == "get_event_loop" and last.raised_here:
        evidence = "asyncio's policy has no loop for this thread"
    elif link.message == "no running event loop" and last.called_names() & _NEEDS_RUNNING_LOOP:
        evidence = "the interpreter itself raised when it was asked for the running loop"
    else:
        return None
    if last.loop is not NO_LOOP and inherited(None, last.loop):
        evidence = (
            "the loop that runs this code is the parent's: in the forked process it does not count as running"
        )
        return Judgement(Kind.FORK_INHERITED, "high", evidence, link, last.loop, last.loop, None, last)
    return Judgement(Kind.NO_CURRENT_LOOP, "high", evidence, link, frame=last)


def loop_methods(link: Link, links: list[Link], channel: Channel) -> Judgement | None:
    """A check of the loop itself failed: wrong thread, stopped, no task, unpatchable, wrong type."""
    last = link.last
    if last is None or not (last.raised_here or last.native):
        return None
    plain, where, name = link.is_plain_runtime_error, last.module, last.function
    on_loop = where in LOOP_MODULES or where == "uvloop.loop"
    found: tuple[Kind, str] | None = None
    if plain and on_loop and name == "_check_thread":
        found = Kind.UNSAFE_CROSS_THREAD, "the loop's own check of the calling thread failed"
    elif plain and on_loop and name == "run_until_complete":
        found = Kind.LOOP_STOPPED_EARLY, "run_until_complete() saw its loop stop before the future was done"
    elif plain and is_timer(last) and not foreign(timer_loop(last), last.loop):
        found = Kind.NO_CURRENT_TASK, f"{where}.{name}() found no current task"
    elif (
        where in ("nest_asyncio", "nest_asyncio2")
        and name == "_patch_loop"
        and link.is_kind("builtins.ValueError")
    ):
        found = Kind.NEST_UNPATCHABLE, "nest_asyncio refused the loop's type"
    elif last.top.startswith("psycopg") and link.is_kind("psycopg.InterfaceError") and _is_proactor(last.loop):
        found = Kind.LOOP_TYPE_MISMATCH, "psycopg refused a proactor loop"
    if found is None:
        return None
    owner = last.owner if last.owner is not None and is_loop(last.owner) else None
    current = None if last.loop is NO_LOOP else last.loop
    return Judgement(found[0], "high", found[1], link, owner, owner, current, last)


def no_more_threads(link: Link, links: list[Link], channel: Channel) -> Judgement | None:
    """A loop needs a thread, for a function or a name's address, and the interpreter that ends gives none."""
    last = link.last
    if last is None or not link.is_plain_runtime_error:
        return None
    refused = last.module == "concurrent.futures.thread" and last.function == "submit" and last.raised_here
    ended = refused and last.raw.f_globals.get("_shutdown") is True  # all pools are, not just this one
    late = last.module == "threading" and last.function == "start" and "interpreter shutdown" in link.message
    if not (ended or late) or not any(frame.is_async or frame.module in LOOP_MODULES for frame in link.frames):
        return None
    current = None if last.loop is NO_LOOP else last.loop
    evidence = "the interpreter is ending, and starts no more threads for the loop"
    return Judgement(Kind.LATE_CLEANUP, "high", evidence, link, None, None, current, last)


def is_timer(frame: Frame) -> bool:
    """Say whether a frame enters a timer."""
    if frame.module in ("asyncio.timeouts", "async_timeout", "aiohttp.helpers"):
        return frame.function in ("__aenter__", "__enter__", "_do_enter", "reschedule")
    return False


def timer_loop(frame: Frame) -> Any:
    """Return the loop of the timer that a frame enters."""
    return None if frame.owner is None else owner_loop(frame.owner)


def _is_proactor(loop: Any) -> bool:
    return is_loop(loop) and is_kind(loop, "asyncio", "ProactorEventLoop", "BaseProactorEventLoop")


def poller(link: Link, links: list[Link], channel: Channel) -> Judgement | None:
    """grpc.aio's one completion queue for all loops."""
    last = link.last
    if last is None or last.function != "_handle_events" or not link.is_kind("builtins.BlockingIOError"):
        return None
    if not last.module.startswith(("src.python.grpcio", "grpc")):
        return None
    return Judgement(
        Kind.GLOBAL_SINGLE_POLLER, "high", "grpc.aio's completion queue woke this loop for nothing", link
    )


def own_thread(link: Link, links: list[Link], channel: Channel) -> Judgement | None:
    """A sync method of an object refused because it runs on the very loop it would wait for."""
    last = link.last
    if last is None or not last.is_package or last.is_async or not last.raised_here or last.owner is None:
        return None
    if not link.is_kind("asyncio.exceptions.InvalidStateError"):
        return None
    owner = owner_loop(last.owner)
    if owner is None or owner is not last.loop:
        return None
    evidence = "a blocking method was called on the thread of the loop that it would wait for"
    return Judgement(Kind.SYNC_BRIDGE_DEADLOCK, "high", evidence, link, last.owner, owner, owner, last)


def cancel_scope(link: Link, links: list[Link], channel: Channel) -> Judgement | None:
    """anyio: a scope is left in another task than it was entered in."""
    last = link.last
    if last is None or not link.is_plain_runtime_error or not last.raised_here or last.owner is None:
        return None
    if last.function == "__exit__" and is_kind(last.owner, "anyio", "CancelScope"):
        evidence = "a cancel scope was left in another task than the one that entered it"
        return Judgement(Kind.ASYNCGEN_CLEANUP, "high", evidence, link, last.owner, None, None, last)
    return None
