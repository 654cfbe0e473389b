"""Children forked at odd places: each ends, or is told that the loop is not its own, and the parent goes on."""

import os

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

PRELUDE = """
import asyncio, os, signal, sys, threading, time, warnings
warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork.*", category=DeprecationWarning)
import homeloop
from homeloop.errors import RuntimeDiedError
def code(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
async def one(): return 1
"""


def test_a_child_forked_while_its_thread_waits_is_told(script) -> None:  # type: ignore[no-untyped-def]
    """A signal handler forks: in the child, nobody will ever answer the wait that it comes back to."""
    ended = script(
        PRELUDE
        + """
parent, may_end, children = os.getpid(), threading.Event(), []
def fork(*_): children.append(os.fork())
signal.signal(signal.SIGUSR1, fork)
async def work():
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.to_thread(may_end.wait, 60)
    return "answered"
def runs(): return homeloop.run(work)
def submits(): return homeloop.submit(work).result()
def iterates(): return next(homeloop.iterate(items))
async def items(): yield await work()
for act in (runs, submits, iterates):
    children.clear(), may_end.clear()
    async def end_children():
        while not children: await asyncio.sleep(0.001)
        ended = await asyncio.to_thread(code, children[0])
        may_end.set()
        return ended
    ended = homeloop.submit(end_children)
    try: print(act(), flush=True)
    except RuntimeDiedError as error:
        print(error, "| own runtime:", homeloop.run(one), flush=True)
        os._exit(0)
    print(ended.result(60), flush=True)
""",
        timeout=90,
    )
    told = "runtime 'homeloop' cannot finish the call: its loop stayed with the parent process | own runtime: 1"
    assert ended.stdout.splitlines() == [told, "answered", "0"] * 3, ended.stderr


def test_a_future_of_the_parents_has_failed_in_the_child(script) -> None:  # type: ignore[no-untyped-def]
    """It is done there, for those who wait for several, too; the parent's is not touched."""
    ended = script(
        PRELUDE
        + """
import concurrent.futures
may_end = threading.Event()
future = homeloop.submit(asyncio.to_thread, may_end.wait, 60)
child = os.fork()
if child == 0:
    concurrent.futures.wait([future])
    print(future.exception(), future.cancel(), flush=True)
    os._exit(3)
print(code(child), future.done())
may_end.set()
print(future.result(60))
"""
    )
    told = "runtime 'homeloop' cannot finish the call: its loop stayed with the parent process False"
    assert ended.stdout.splitlines() == [told, "3 False", "True"], ended.stderr


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_a_child_forked_on_the_loops_thread_ends_with_what_forked_it(script, kind: str) -> None:  # type: ignore[no-untyped-def]
    """With the exit code of what it did there, its own runtime closed; it does none of its parent's work."""
    if kind == "uvloop":
        pytest.importorskip("uvloop")
    ended = script(
        PRELUDE
        + f"runtime = homeloop.LoopRuntime(loop_factory=__import__({kind!r}).new_event_loop)"
        + """
parent = os.getpid()
async def returns(): return os.fork()
async def uses():
    child = os.fork()
    if not child:
        async def open_to_the_end():
            try: await asyncio.Event().wait()
            finally: print("closed", flush=True)
        homeloop.submit(open_to_the_end)
        assert homeloop.run(one) == 1
        print("used")  # flushed at the end
    return child
async def exits():
    child = os.fork()
    if not child: sys.exit(4)
    return child
async def fails():
    child = os.fork()
    if not child: raise LookupError("in the child")
    return child
async def awaits():
    child = os.fork()
    if not child: await asyncio.sleep(0)
    return child
async def background(): return await asyncio.create_task(returns())
async def works(): return await asyncio.to_thread(os.fork)
def exits_there():
    child = os.fork()
    if not child: sys.exit(5)
    return child
async def works_and_exits(): return await asyncio.to_thread(exits_there)
async def tick():
    while True:
        assert os.getpid() == parent, "the parent's task ran in the child"
        await asyncio.sleep(0)
runtime.submit(tick)
for fn in (returns, uses, exits, fails, awaits, background, works, works_and_exits):
    print(fn.__name__, code(runtime.run(fn, timeout=60)), runtime.run(one, timeout=60), flush=True)
runtime.close()
"""
    )
    assert ended.stdout.splitlines() == [
        "returns 0 1",
        "used",
        "closed",
        "uses 0 1",
        "exits 4 1",
        "fails 1 1",
        "awaits 1 1",
        "background 1 1",
        "works 0 1",
        "works_and_exits 5 1",
    ], ended.stderr
    assert "LookupError: in the child" in ended.stderr
    assert ended.stderr.count("its copy of the parent's loop does not run") == 2
    assert "the parent's task" not in ended.stderr
