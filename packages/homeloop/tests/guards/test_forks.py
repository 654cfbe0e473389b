"""What a forked child inherits is refused there, on its parent's loop run again too; what it opens is its own."""

from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

Script = Callable[..., "CompletedProcess[str]"]

IN_CHILD = """
    import asyncio, os, sys
    from homeloop import LoopGuard, LoopLocal
    from homeloop.errors import WrongLoopError

    def in_child(work):
        number = os.fork()
        if number == 0:
            try:
                work()
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
            sys.stdout.flush()
            os._exit(0)
        assert os.waitpid(number, 0)[1] == 0
"""

EVERY_KIND = (
    IN_CHILD
    + """
    class Client:
        async def fetch(self): return "row"
        async def rows(self): yield "row"
        def stop(self): return "stopped"
        def part(self): return Client()
        def __await__(self): yield from asyncio.sleep(0).__await__(); return self
        def __del__(self): FINALIZED.append(self)

    PARENT, FINALIZED = os.getpid(), []
    PART = LoopGuard(coroutines=True)
    CLIENT = LoopGuard(
        "stop", "__await__", coroutines=True, results={"part": PART}, corrections={"__del__": lambda end: end}
    )
    loop = asyncio.new_event_loop()

    async def make(): return CLIENT(Client(), asyncio.get_running_loop())
    async def fetch(client): return await client.fetch()
    async def first(client): return await anext(client.rows())
    async def stop(client): return client.stop()
    async def part(client): return client.part()
    async def wait(client): return await client
    ENTRIES = (fetch, first, stop, part, wait)

    client = loop.run_until_complete(make())

    def work():
        global client
        for entry in ENTRIES:
            try:
                loop.run_until_complete(entry(client))
            except WrongLoopError as error:
                assert f"pid {PARENT}" in error.owner and f"process {os.getpid()}" in error.current, error
            else:
                raise AssertionError(entry)
        del client
        assert FINALIZED == []
        own = loop.run_until_complete(make())
        assert loop.run_until_complete(fetch(own)) == "row"
        loop.run_until_complete(part(own))

    in_child(work)
    for entry in ENTRIES:
        loop.run_until_complete(entry(client))
    loop.close()
    print("done")
"""
)


def test_every_kind_of_entry_is_refused_in_a_forked_child(script: Script) -> None:
    """With both processes in the error; a finalizer does nothing; the parent notices nothing."""
    run = script(EVERY_KIND)
    assert (run.returncode, run.stdout.strip()) == (0, "done"), run.stderr


ASYNCPG = (
    IN_CHILD
    + """
    import asyncpg

    pools = LoopLocal(lambda: asyncpg.create_pool(os.environ["DSN"], min_size=1, max_size=1))
    loop = asyncio.new_event_loop()

    async def use(pool):
        return await pool.fetchval("select 1")

    pool = loop.run_until_complete(pools.get())

    def work():
        for _ in range(20):
            try:
                loop.run_until_complete(use(pool))
            except WrongLoopError:
                pass
            else:
                raise AssertionError("not refused")
        assert loop.run_until_complete(pools.get()) is not pool
        assert loop.run_until_complete(use(loop.run_until_complete(pools.get()))) == 1
        loop.run_until_complete(pools.aclose())

    in_child(work)
    in_child(work)
    assert loop.run_until_complete(use(pool)) == 1
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    print(pools.statistics().closed)
"""
)


@pytest.mark.needs("postgres")
def test_an_inherited_pool_is_refused_before_its_sockets_are_touched(script: Script, postgres_url: str) -> None:
    """Two children that run their parent's loop again get an error and a pool of their own; the parent's works."""
    run = script(ASYNCPG, DSN=postgres_url)
    assert (run.returncode, run.stdout.strip()) == (0, "1"), run.stderr
