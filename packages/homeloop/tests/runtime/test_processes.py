"""Fork, signals and interpreter exit, each in a process of its own."""

import os

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

PRELUDE = """
import asyncio, os, signal, sys, threading, warnings
warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork.*", category=DeprecationWarning)
import homeloop
from homeloop.errors import *
async def pid(): return os.getpid()
def child(work):
    # Fork, run `work` in the child through full finalization, and return its exit code.
    number = os.fork()
    if number == 0:
        work()
        sys.exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_forked_child_gets_a_runtime_of_its_own_and_leaves_the_parents_alone(script, loop: str) -> None:
    """The child calls run(), exits cleanly, and the parent's loop still does I/O."""
    ended = script(
        PRELUDE
        + f"""
if {loop!r} == "uvloop": asyncio.set_event_loop_policy(__import__("uvloop").EventLoopPolicy())
async def talk():
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    answer = await reader.read(); writer.close(); server.close()
    return answer
assert homeloop.run(pid) == os.getpid()
def work():
    assert homeloop.run(pid) == os.getpid()
    assert homeloop.run(talk) == b""
    assert homeloop.default_runtime().statistics().restarts == 1
    homeloop.default_runtime().close()
for _ in range(3):
    assert child(work) == 0
    assert homeloop.run(talk) == b""
print("parent fine")
"""
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "parent fine\n", "")


def test_a_fork_from_inside_a_coroutine_is_survived_by_both(script) -> None:
    """The child's only thread is then the home's own, and it may still call run()."""
    ended = script(
        PRELUDE
        + """
async def fork_here():
    number = os.fork()
    if number == 0:
        code = 1
        try:
            code = 0 if homeloop.run(pid, timeout=10) == os.getpid() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
assert homeloop.run(fork_here) == 0
assert homeloop.run(pid) == os.getpid()
print("both fine")
"""
    )
    assert (ended.returncode, ended.stdout) == (0, "both fine\n")


def test_a_fork_while_another_thread_waits_in_run_is_survived(script) -> None:
    """Locks that other threads hold in the parent do not bind the child."""
    ended = script(
        PRELUDE
        + """
started = threading.Event()
async def wait(): started.set(); await asyncio.Event().wait()
threading.Thread(target=lambda: homeloop.submit(wait).exception(), daemon=True).start()
assert started.wait(10)
def work(): assert homeloop.run(pid, timeout=10) == os.getpid()
assert child(work) == 0
print("fine")
"""
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "fine\n", "")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_process_pool_workers_can_run(script, method: str) -> None:
    """concurrent.futures' processes, started by a parent that used the runtime."""
    ended = script(
        PRELUDE
        + f"""
import concurrent.futures, multiprocessing
assert homeloop.run(pid) == os.getpid()
with concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context({method!r})) as pool:
    assert list(pool.map(homeloop.run, [asyncio.sleep] * 4, [0] * 4)) == [None] * 4
print("fine")
"""
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "fine\n", "")


@pytest.mark.parametrize("when", ["signal handler", "ctrl-c"])
def test_a_signal_while_waiting_cancels_and_cleans_up_before_it_is_raised(script, when: str) -> None:
    """Celery's soft limit is a signal handler that raises; so is Ctrl-C."""
    ended = script(
        PRELUDE
        + f"""
class Limit(Exception): pass
def raise_limit(*_): raise Limit
expected = Limit if {when!r} == "signal handler" else KeyboardInterrupt
if expected is Limit: signal.signal(signal.SIGINT, raise_limit)
before = signal.getsignal(signal.SIGINT)
async def wait():
    threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT)).start()
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        print("cleaned")
try:
    homeloop.run(wait)
except expected:
    print("raised")
assert signal.getsignal(signal.SIGINT) is before
assert homeloop.run(pid) == os.getpid()
"""
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "cleaned\nraised\n", "")


def test_exit_drains_background_tasks_and_submitted_work(script) -> None:
    """Their finally blocks run on their loop; nothing is printed but by them."""
    ended = script(
        PRELUDE
        + """
async def wait(name):
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        print(name, "cleaned")
kept = []
async def start(): kept.append(asyncio.create_task(wait("background"))); await asyncio.sleep(0)
homeloop.run(start)
started = threading.Event()
async def submitted():
    started.set()
    await wait("submitted")
future = homeloop.submit(submitted)
assert started.wait(10)
"""
    )
    assert sorted(ended.stdout.splitlines()) == ["background cleaned", "submitted cleaned"]
    assert (ended.returncode, ended.stderr) == (0, "")


def test_run_in_exit_handlers_works_or_is_refused(script) -> None:
    """One registered after the runtime started works; one registered before is told that it is closed."""
    ended = script(
        PRELUDE
        + """
import atexit
def late():
    try: print("late", homeloop.run(pid) == os.getpid())
    except LifecycleError as error: print("late refused:", error)
def early(): print("early", homeloop.run(pid) == os.getpid())
atexit.register(late)
homeloop.run(pid)
atexit.register(early)
"""
    )
    assert ended.stdout.splitlines() == [
        "early True",
        "late refused: runtime 'homeloop' is closed; open another one",
    ]
    assert (ended.returncode, ended.stderr) == (0, "")


def test_run_in_a_finalizer_during_interpreter_exit_does_not_hang(script) -> None:
    """__del__ of a module global is refused, whether or not a runtime ever ran."""
    source = """
class Late:
    # Defaults, because the names of a module are gone when it is torn down.
    def __del__(self, run=homeloop.run, pid=pid, refused=LifecycleError, write=os.write):
        try: run(pid)
        except refused as error: write(1, type(error).__name__.encode() + b" ")
late = Late()
"""
    for used in ("", "homeloop.run(pid)\n"):
        ended = script(PRELUDE + used + source)
        assert ended.returncode == 0
        assert ended.stdout.strip() in {"RuntimeClosedError", "RuntimeDiedError"}


def test_threads_that_outlive_the_main_thread_still_run(script) -> None:
    """Non-daemon threads are waited for by the interpreter, and their calls work."""
    ended = script(
        PRELUDE
        + """
homeloop.run(pid)
def late():
    threading.main_thread().join()
    print(homeloop.run(pid) == os.getpid())
threading.Thread(target=late).start()
"""
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "True\n", "")


def test_a_first_call_after_the_main_thread_ended_works_or_is_refused(script) -> None:
    """Python 3.12.0 and 3.12.1 start no thread any more by then, and the error says so; others do."""
    ended = script(
        PRELUDE
        + """
def late():
    threading.main_thread().join()
    try: print(homeloop.run(pid) == os.getpid())
    except RuntimeDiedError as error: print("its thread cannot be started" in str(error))
threading.Thread(target=late).start()
"""
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "True\n", "")


def test_a_daemon_thread_hammering_run_does_not_keep_the_process(script) -> None:
    """The interpreter exits in the middle of a stream of calls."""
    ended = script(
        PRELUDE
        + """
going = threading.Event()
def hammer():
    try:
        while True:
            homeloop.run(pid)
            going.set()
    except LifecycleError: pass
for _ in range(4): threading.Thread(target=hammer, daemon=True).start()
assert going.wait(10)
"""
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_importing_homeloop_starts_nothing(script) -> None:
    """No thread, no loop, no policy, no signal handler, no fork hook's trace at import."""
    ended = script(
        """
import signal, sys, threading
before = signal.getsignal(signal.SIGINT)
import homeloop
assert threading.active_count() == 1
assert signal.getsignal(signal.SIGINT) is before
assert not [name for name in ("celery", "kombu", "asyncpg", "uvloop") if name in sys.modules]
assert homeloop.default_runtime().statistics().home is None
"""
    )
    assert (ended.returncode, ended.stderr) == (0, "")
