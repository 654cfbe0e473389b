"""asyncpg on two live loops: it may take the process with it; through LoopLocal the second loop is refused."""

from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

ROUNDS = 100

TWO_LOOPS = """
    import asyncio, os, sys, threading
    import asyncpg
    from homeloop import LoopLocal
    from homeloop.errors import WrongLoopError

    DSN, GUARDED, ROUNDS = os.environ["DSN"], os.environ["GUARDED"] == "yes", int(os.environ["ROUNDS"])

    def make():
        return asyncpg.create_pool(DSN, min_size=2, max_size=2)

    pools = LoopLocal(make)
    told = {}

    async def stranger(pool):
        for result in await asyncio.gather(*(pool.fetchval("select 2") for _ in range(3)), return_exceptions=True):
            name = type(result).__name__
            told[name] = told.get(name, 0) + 1

    async def main():
        pool = await (pools.get() if GUARDED else make())
        thread = threading.Thread(target=lambda: asyncio.run(stranger(pool), debug=False), daemon=True)
        thread.start()
        async with asyncio.timeout(5):
            while thread.is_alive():  # the owner uses it all the time
                assert await pool.fetchval("select 1") == 1
            assert await asyncio.gather(*(pool.fetchval("select 1") for _ in range(4))) == [1] * 4

    for _ in range(ROUNDS):
        asyncio.run(main(), debug=False)  # debug mode would see some of it, and so hide what a user has
    print(told, pools.statistics().closed)
"""

Script = Callable[..., "CompletedProcess[str]"]


@pytest.mark.needs("postgres")
def test_two_live_loops_a_hundred_times(script: Script, postgres_url: str) -> None:
    """The stranger is refused every time, and its owner never notices; by hand the owner fails, or dies."""
    by_hand = script(TWO_LOOPS, DSN=postgres_url, GUARDED="no", ROUNDS="20", timeout=100)
    assert by_hand.returncode != 0  # the owner fails, or the system kills the process
    ours = script(TWO_LOOPS, DSN=postgres_url, GUARDED="yes", ROUNDS=str(ROUNDS), timeout=100)
    assert (ours.returncode, ours.stdout.strip()) == (0, f"{{'WrongLoopError': {3 * ROUNDS}}} {ROUNDS}"), (
        ours.stderr
    )
