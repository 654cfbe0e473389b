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


def test_the_error_survives_pickle() -> None:
    """It may cross a process boundary."""
    error = DeadlockError(("one: a.py:1 in f", "other: b.py:2 in g"))
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.waits) == (str(error), error.waits)
    with pytest.raises(RuntimeError, match="arun"):
        raise again
