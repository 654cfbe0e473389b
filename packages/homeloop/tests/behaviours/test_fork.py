"""A forked child has a runtime of its own, and its parent's is not harmed."""

import os

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

TALK = """
async def talk():
    # A whole conversation over a socket: it fails if the selector was tampered with.
    async def answer(reader, writer):
        writer.write((await reader.readline())[::-1])
        writer.close()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        writer.write(b"ping\\n")
        said = await reader.read()
        writer.close()
        await writer.wait_closed()
    return said.strip()
async def pid(): return os.getpid()
"""


def test_j01_a_forked_child_can_run(scenario) -> None:
    """Forked child (after the parent used the bridge) can call run()."""
    printed = scenario(
        TALK
        + """
assert homeloop.run(pid) == os.getpid()
def work():
    assert homeloop.run(pid, timeout=30) == os.getpid()
    assert homeloop.run(talk, timeout=30) == b"gnip"
    os._exit(7)
print(child(work))
"""
    )
    assert printed == ["7"]


def test_j02_a_forked_child_exits_cleanly(scenario) -> None:
    """Forked child exits cleanly through full finalization."""
    printed = scenario(
        """
homeloop.run(identity, None)
def use_it():
    print(homeloop.run(identity, "child"))
def leave_it():
    pass
print(child(use_it), child(leave_it), flush=True)
"""
    )
    assert printed == ["child", "0 0"]


def test_j03_a_fork_beside_a_running_call(scenario) -> None:
    """Fork while another thread is inside run(): the child can call run()."""
    printed = scenario(
        TALK
        + """
started, gate = threading.Event(), threading.Event()
async def wait():
    started.set()
    await asyncio.to_thread(gate.wait, 30)
    return "parent goes on"
def caller(): print(homeloop.run(wait))
thread = threading.Thread(target=caller)
thread.start()
started.wait(30)
def work(): assert homeloop.run(pid, timeout=30) == os.getpid()
print(child(work), flush=True)
gate.set()
thread.join(30)
"""
    )
    assert printed == ["0", "parent goes on"]


def test_j04_the_parents_loop_still_does_io(scenario) -> None:
    """After the child used and closed its bridge, the parent's loop still does I/O."""
    printed = scenario(
        TALK
        + """
assert homeloop.run(talk) == b"gnip"
def work():
    assert homeloop.run(talk, timeout=30) == b"gnip"
    assert homeloop.default_runtime().statistics().restarts == 1
    homeloop.default_runtime().close()
    gc.collect()
for _ in range(3):
    print(child(work), homeloop.run(talk, timeout=30), flush=True)
"""
    )
    assert printed == ["0 b'gnip'"] * 3


def test_j05_process_pool_workers_can_run(scenario) -> None:
    """ProcessPoolExecutor(fork) workers can call run() after the parent did."""
    printed = scenario(
        TALK
        + """
import multiprocessing
homeloop.run(identity, None)
fork = multiprocessing.get_context("fork")
with concurrent.futures.ProcessPoolExecutor(2, mp_context=fork) as pool:
    calls = [pool.submit(homeloop.run, pid, timeout=30) for _ in range(8)]
    pids = {call.result(30) for call in calls}
print(os.getpid() not in pids, homeloop.run(pid) == os.getpid())
"""
    )
    assert printed == ["True True"]


def test_j06_a_fork_inside_a_coroutine(scenario) -> None:
    """Fork from inside a coroutine on the bridge's loop: child can run(), parent unharmed."""
    printed = scenario(
        TALK
        + """
async def fork_here():
    number = os.fork()
    if number == 0:
        code = 1
        try:
            code = 0 if homeloop.run(pid, timeout=30) == os.getpid() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
print(homeloop.run(fork_here), homeloop.run(talk, timeout=30))
"""
    )
    assert printed == ["0 b'gnip'"]
