"""The end of a process: a child closes nothing of its parent's, and no thread of a resource holds it up."""

import sys
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

Script = Callable[..., "CompletedProcess[str]"]


def test_a_child_that_leaves_by_exit_closes_nothing_of_its_parents(script: Script) -> None:
    """The child ends the loop that it inherited; what is on that loop is closed once, by the parent."""
    ended = script(
        """
        import asyncio, os, sys, warnings
        warnings.filterwarnings("ignore", message=".*use of fork.*", category=DeprecationWarning)
        from homeloop import LoopLocal, LoopRuntime

        PARENT = os.getpid()

        class Client:
            async def aclose(self): print("closed by the parent", os.getpid() == PARENT, flush=True)

        clients = LoopLocal(Client)

        async def main():
            asyncio.get_running_loop().slow_callback_duration = 60
            await clients.get()
            child = os.fork()
            if child == 0:
                sys.exit(0)
            assert os.waitpid(child, 0)[1] == 0

        asyncio.run(main())
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "closed by the parent True\n", "")


AIOSQLITE = "lambda: aiosqlite.connect(':memory:')"
IN_WORKER = "Worker"


@pytest.mark.parametrize("factory", [AIOSQLITE, IN_WORKER])
@pytest.mark.parametrize("thread", ["main", "ended"])
def test_a_loop_that_nobody_ends_is_ended_before_threads_are_joined(
    factory: str, thread: str, script: Script
) -> None:
    """A resource with a thread of its own does not hold up the exit; one that closes in a thread can."""
    if factory == IN_WORKER and (3, 12) <= sys.version_info < (3, 12, 2):
        pytest.skip("Python 3.12.0 and 3.12.1 start no thread any more once the main thread is done")
    ended = script(
        f"""
        import asyncio, threading, warnings
        import aiosqlite
        from homeloop import LoopLocal, add_instrument

        class Recorder:
            def notify(self, event):
                if type(event).__name__.startswith("Resource"): print(type(event).__name__, flush=True)

        class Worker:
            async def aclose(self): await asyncio.to_thread(int)

        add_instrument(Recorder())
        local = LoopLocal({factory})
        loop = asyncio.new_event_loop()
        loop.slow_callback_duration = 60

        def work(): loop.run_until_complete(local.get())

        if {thread == "main"}:
            work()
        else:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        warnings.simplefilter("ignore", ResourceWarning)  # nobody closes the loop: that is the point
        """,
        timeout=10.0,
    )
    assert (ended.returncode, ended.stdout) == (0, "ResourceOpened\nResourceClosed\n"), ended.stderr
