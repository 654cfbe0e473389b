"""Processes started otherwise than by fork, and a process's first moments and last, each in one of its own."""


def test_spawned_process_pool_workers_can_run(script) -> None:
    """They start with nothing of their parent's but the code."""
    ended = script(
        """
import asyncio, concurrent.futures, multiprocessing
import homeloop
assert homeloop.run(asyncio.sleep, 0, 1) == 1
with concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
    assert list(pool.map(homeloop.run, [asyncio.sleep] * 4, [0] * 4, range(4))) == [0, 1, 2, 3]
"""
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_a_first_call_after_the_main_thread_ended_works_or_is_refused(script) -> None:
    """Python 3.12.0 and 3.12.1 start no thread any more by then, and the error says so; others do."""
    ended = script(
        """
import asyncio, threading
import homeloop
from homeloop.errors import RuntimeDiedError
def late():
    threading.main_thread().join()
    try: print(homeloop.run(asyncio.sleep, 0, True))
    except RuntimeDiedError as error: print("its thread cannot be started" in str(error))
threading.Thread(target=late).start()
"""
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "True\n", "")


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
