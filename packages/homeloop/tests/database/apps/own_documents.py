"""
One piece of work, done by Celery workers and, as a program, by two runtimes and ``asyncio.run`` loops.

As a program it prints a line when every one of its loops has done half and has its pool open; told to go
on by a line, it does the other half and prints how many times it was done.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from celery import Celery

from homeloop import LoopRuntime, as_user
from homeloop.adapters.celery import install
from homeloop.database import ConnectionPoolManager, get_user_connection

POOL_SIZE = 2
USERS = ("alice", "bob")
RUNTIMES, CALLS = 2, 100  # each runtime, from four threads
THREADS, LOOPS, TASKS = 4, 5, 10  # each thread, loops one after the other, tasks side by side on each
BOUND = 60.0  # seconds that the hosts wait for each other
half_way = threading.Barrier(THREADS + 1 + 1)  # the program itself waits too, twice

ConnectionPoolManager.configure(min_size=POOL_SIZE, max_size=POOL_SIZE)
app = Celery("own_documents", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.update(task_default_queue=os.environ["QUEUE"], worker_prefetch_multiplier=1)
install(app)


async def own_documents(user_id: str) -> None:
    """Three queries as a user; raise where the user sees anything else than its own."""
    with as_user(user_id):
        async with get_user_connection() as connection:
            assert await connection.fetchval("SELECT current_setting('app.user_id')") == user_id
            assert await connection.execute("UPDATE documents SET body = body") == "UPDATE 1"
            rows = await connection.fetch("SELECT owner FROM documents")
            assert [row["owner"] for row in rows] == [user_id]


@app.task
async def look(user_id: str) -> str:
    """The work as a Celery task."""
    await own_documents(user_id)
    return user_id


def wait_half_way() -> None:
    """Wait until every loop of the program has its pool open, and until it is told to go on."""
    half_way.wait(BOUND)
    half_way.wait(BOUND)


def in_runtimes() -> int:
    """Do it on two runtimes that live at the same time, called by several threads."""
    with (
        LoopRuntime(name="first") as first,
        LoopRuntime(name="second") as second,
        ThreadPoolExecutor(4) as threads,
    ):
        both = (first, second)
        assert len(both) == RUNTIMES

        def half() -> int:
            users = [USERS[number % 2] for number in range(CALLS // 2)]
            calls = [threads.submit(runtime.run, own_documents, user) for user in users for runtime in both]
            return len([call.result() for call in calls])

        done = half()
        wait_half_way()
        return done + half()


def in_loops_of_its_own() -> int:
    """Do it in one ``asyncio.run`` after the other."""

    async def side_by_side(tasks: int) -> Sequence[None]:
        return await asyncio.gather(*(own_documents(USERS[number % 2]) for number in range(tasks)))

    async def with_a_break() -> Sequence[None]:
        done = await side_by_side(TASKS // 2)
        await asyncio.to_thread(wait_half_way)
        return [*done, *await side_by_side(TASKS // 2)]

    return sum(len(asyncio.run(with_a_break() if number == 0 else side_by_side(TASKS))) for number in range(LOOPS))


if __name__ == "__main__":
    done: list[int] = []
    work = [in_runtimes, *[in_loops_of_its_own] * THREADS]
    hosts = [threading.Thread(target=lambda each=each: done.append(each())) for each in work]
    for host in hosts:
        host.start()
    half_way.wait(BOUND)
    print("half way", flush=True)
    sys.stdin.readline()
    half_way.wait(BOUND)
    for host in hosts:
        host.join()
    print(sum(done))
    sys.exit(len(done) != len(work))
