"""A circle of blocking waits is an error at once, not a hang."""

import pickle

import pytest

from homeloop.errors import DeadlockError


def test_two_runtimes_that_block_on_each_other(scenario) -> None:
    """The loop of one blocks in run() of the other, whose loop blocks in run() of the first: both stacks show."""
    printed = scenario(
        """
one, other = LoopRuntime(name="one"), LoopRuntime(name="other")
async def ask_the_other(): return other.run(ask_back)
async def ask_back(): return one.run(identity, 1)
try:
    one.run(ask_the_other)
except DeadlockError as error:
    text = str(error)
    print([name in text for name in ("one", "other", "ask_the_other", "ask_back")])
print(one.run(identity, "usable"), other.run(identity, "usable"))
gc.collect()
one.close(); other.close()
"""
    )
    assert printed == ["[True, True, True, True]", "usable usable"]


def test_three_runtimes_in_a_circle(scenario) -> None:
    """However long the circle is."""
    printed = scenario(
        """
runtimes = [LoopRuntime(name=f"number {i}") for i in range(3)]
async def ask(number): return runtimes[number % 3].run(ask, number + 1)
try:
    runtimes[0].run(ask, 1)
except DeadlockError as error:
    print([runtime.name in str(error) for runtime in runtimes], len(error.waits))
for runtime in runtimes:
    print(runtime.run(identity, "usable"))
    runtime.close()
"""
    )
    assert printed == ["[True, True, True] 3", *["usable"] * 3]


@pytest.mark.parametrize("how", ["first item", "later item", "enter"])
def test_a_conversation_that_waits_for_the_loop_it_blocks(scenario, how: str) -> None:
    """A generator or context manager that waits for the loop on whose thread it is stepped."""
    printed = scenario(
        f"""
from contextlib import asynccontextmanager
one, other = LoopRuntime(name="one"), LoopRuntime(name="other")
async def items():
    if {how!r} == "later item": yield 1
    await one.arun(identity, 1)
    yield 2
@asynccontextmanager
async def manager():
    await one.arun(identity, 1)
    yield
async def ask_the_other():
    if {how!r} == "enter":
        with other.enter(manager()): pass
    else: list(other.iterate(items))
try:
    one.run(ask_the_other)
except DeadlockError as error:
    print("other" in str(error))
print(one.run(identity, "usable"), other.run(identity, "usable"))
one.close(); other.close()
"""
    )
    assert printed == ["True", "usable usable"]


def test_a_chain_is_no_circle(scenario) -> None:
    """A loop may block for another one that waits for nobody."""
    printed = scenario(
        """
one, other = LoopRuntime(name="one"), LoopRuntime(name="other")
async def ask_the_other(): return other.run(identity, "answer")
for _ in range(3):
    print(one.run(ask_the_other))
one.close(); other.close()
"""
    )
    assert printed == ["answer"] * 3


def test_waiting_with_arun_is_no_circle(scenario) -> None:
    """What only suspends a task leaves the loop free to answer."""
    printed = scenario(
        """
one, other = LoopRuntime(name="one"), LoopRuntime(name="other")
async def ask_the_other(): return await other.arun(ask_back)
async def ask_back(): return one.run(identity, "answer")
print(one.run(ask_the_other, timeout=30))
one.close(); other.close()
"""
    )
    assert printed == ["answer"]


def test_a_coroutine_that_awaits_the_loop_that_waits_for_it(scenario) -> None:
    """A loop blocks in run() for a call that awaits arun() there: the arun is refused, with both stacks."""
    printed = scenario(
        """
one, other = LoopRuntime(name="one"), LoopRuntime(name="other")
async def ask_back(): return await one.arun(identity, 1)
async def ask_further(): return await other.arun(ask_back)
async def ask(how): return other.run(how)
for how in (ask_back, ask_further):
    try:
        one.run(ask, how)
    except DeadlockError as error:
        print([name in str(error) for name in ("one: ", "other: ", "ask_back", "in ask >")])
print(one.run(identity, "usable"), other.run(identity, "usable"))
one.close(); other.close()
"""
    )
    assert printed == ["[True, True, True, True]"] * 2 + ["usable usable"]


def test_a_worker_that_waits_for_the_loop_that_waits_for_it(scenario) -> None:
    """So is the run() in a thread that the call started, with its context or without."""
    printed = scenario(
        """
one, other = LoopRuntime(name="one"), LoopRuntime(name="other")
async def to_thread(): return await asyncio.to_thread(one.run, identity, 1)
async def in_executor(): return await asyncio.get_running_loop().run_in_executor(None, one.run, identity, 1)
async def ask(how): return other.run(how)
for how in (to_thread, in_executor):
    try:
        one.run(ask, how)
    except DeadlockError as error:
        print([name in str(error) for name in ("one: ", "other-executor", "in ask >")])
one.close(); other.close()
"""
    )
    assert printed == ["[True, True, True]"] * 2


def test_a_callback_of_the_loop_that_waits(scenario) -> None:
    """A host's loop blocks in run() for a call that awaits a callback which is bound to the host."""
    printed = scenario(
        """
seen = []
async def host():
    progress = homeloop.bind_callback(seen.append)
    async def work():
        progress(1)
        try: await progress(2)
        except DeadlockError as error: return ["MainThread: " in str(error), "work" in str(error)]
    return homeloop.run(work), await progress(3)
print(asyncio.run(host()), seen)
"""
    )
    assert printed == ["([True, True], None) [1, 2, 3]"]


def test_others_may_await_a_blocked_loop(scenario) -> None:
    """What the blocked loop does not wait for is never refused: background tasks, other calls, later ones."""
    printed = scenario(
        """
one, other = LoopRuntime(name="one"), LoopRuntime(name="other")
tasks = []
async def call_back(number): return await one.arun(identity, number)
async def start_background():
    # Both inherit this call's context, and neither keeps it from ending.
    tasks.append(asyncio.create_task(call_back("task")))
    tasks.append(asyncio.create_task(asyncio.to_thread(one.run, identity, "worker")))
    await asyncio.sleep(0)
    return "done"
async def ask(): return other.run(start_background)
async def gather(): return await asyncio.gather(*tasks)
unrelated = other.submit(call_back, "unrelated")
print(one.run(ask), other.run(gather), unrelated.result(30))
async def later():  # the same context once more, when nobody is blocked any more
    other.run(start_background)
    return await other.arun(call_back, "later")
print(one.run(later), other.run(gather))
print(any(var.name.startswith("homeloop_") for var in contextvars.copy_context()))
one.close(); other.close()
"""
    )
    assert printed == ["done ['task', 'worker'] unrelated", "later ['task', 'worker', 'task', 'worker']", "False"]


def test_the_error_survives_pickle() -> None:
    """It may cross a process boundary."""
    error = DeadlockError(("one: a.py:1 in f", "other: b.py:2 in g"))
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.waits) == (str(error), error.waits)
    with pytest.raises(RuntimeError, match="arun"):
        raise again
