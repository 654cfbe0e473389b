"""Which loop ran each frame of a traceback."""

from collections.abc import Iterator
from types import FrameType
from typing import Any

from homeloop._provenance import HARNESSES
from homeloop.diagnosis._frames import NO_LOOP, Frame
from homeloop.diagnosis._reading import attribute, is_loop, kind_name, kinds, owner_loop

_MAX_CALLERS = 400
_RUNNERS = frozenset(("run_until_complete", "run_forever"))


def tell_loops(frames: list[Frame], outside: Frame | None = None) -> None:
    """
    Tell for each frame which loop ran it.

    Args:
        frames: Outermost first.
        outside: A frame of the exception that this one is part of, for where this traceback does not begin.
    """
    if not frames:
        return
    known: dict[int, Frame] = {}
    loop, harness, runner = _ambient(frames[0].raw.f_back)
    if loop is None and outside is not None:
        loop, harness, runner = outside.loop, outside.harness, outside.runner
    before: Frame | None = None
    handed_over = True
    for index, frame in enumerate(frames):
        earlier = known.get(id(frame.raw))
        if earlier is not None:
            loop, harness, runner = earlier.loop, earlier.harness, earlier.runner
        elif before is not None and frame.is_async and not before.may_await and not handed_over:
            # A plain function does not await: what it re-raised came from elsewhere.
            loop, harness, runner = None, False, None
        frame.loop, frame.harness, frame.runner = loop, harness, runner
        known.setdefault(id(frame.raw), frame)
        found = _loop_run_by(frame)
        handed_over = found is not None or frame.native
        if found is not None:
            if not (runner is not None and loop is found):
                harness = _in_harness(frames[: index + 1])
                runner = frame
            loop = found
        elif _leaves_loop(frame):
            loop, harness, runner = NO_LOOP, False, None
        elif frame.module == "concurrent.futures._base":
            loop, harness, runner, handed_over = None, False, None, True
        elif frame.module == "anyio.from_thread" and frame.function == "_call_func":
            loop, runner = _portal_loop(frame), frame
            harness = _in_harness(frames[: index + 1])
        before = frame


def callers(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a running frame and those that called it, innermost first."""
    for _ in range(_MAX_CALLERS):
        if frame is None:
            return
        yield frame
        frame = frame.f_back


def _ambient(frame: FrameType | None) -> tuple[Any, bool, Frame | None]:
    """Find the loop that runs a frame that is still running."""
    for raw in callers(frame):
        if raw.f_code.co_name in _RUNNERS or raw.f_code.co_filename.endswith("runners.py"):
            seen = Frame(raw, raw.f_lineno, raw.f_lasti)
            loop = _loop_run_by(seen)
            if loop is not None:
                outer = [Frame(each, each.f_lineno, each.f_lasti) for each in callers(raw)][::-1]
                return loop, _in_harness(outer), seen
    return None, False, None


def _loop_run_by(frame: Frame) -> Any:
    """Return the loop that a frame runs, if it is one that runs a loop."""
    if frame.native:
        return None
    if frame.function in _RUNNERS:
        owner = frame.owner
        return owner if owner is not None and is_loop(owner) else None
    if frame.module == "asyncio.runners" and frame.function == "run":
        # After the run the runner has forgotten its loop; its task has not. Only 'task' proves that it ran.
        task = frame.variables.get("task")
        return None if task is None else owner_loop(task)
    return None


def _portal_loop(frame: Frame) -> Any:
    """Return the loop that a portal of anyio runs its calls on: its token's, or its host task's."""
    token = None if frame.owner is None else attribute(frame.owner, "_token")
    loop = None if token is None else attribute(token, "native_token")
    if loop is not None and is_loop(loop):
        return loop
    group = None if frame.owner is None else attribute(frame.owner, "_task_group")
    scope = None if group is None else attribute(group, "cancel_scope")
    task = None if scope is None else attribute(scope, "_host_task")
    return None if task is None else owner_loop(task)


def _leaves_loop(frame: Frame) -> bool:
    """Say whether what this frame calls runs on a thread of its own, without a loop."""
    if frame.function not in ("run", "_bootstrap_inner"):
        return False
    if frame.module in ("concurrent.futures.thread", "threading"):
        return True
    owner = frame.owner
    return owner is not None and any(kind_name(kind) == ("threading", "Thread") for kind in kinds(owner))


def _in_harness(outer: list[Frame]) -> bool:
    """Say whether the innermost of these frames that is nobody's plumbing is a test tool's."""
    for frame in reversed(outer):
        if frame.module.startswith(HARNESSES):
            return True
        if not frame.is_standard and frame.top != "anyio":
            return False
    return False
