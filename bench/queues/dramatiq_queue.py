"""dramatiq's actors; ``python dramatiq_queue.py TASK COUNT`` sends them."""

import os
import sys

import dramatiq
import workload
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware.asyncio import AsyncIO
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from redis import Redis


def client(variable: str) -> Redis:
    """Return a client with a connection for each thread: redis-py gives 100 unless told otherwise."""
    return Redis.from_url(os.environ[variable], max_connections=1000)


broker = RedisBroker(client=client("BENCH_BROKER"))
broker.add_middleware(AsyncIO())
broker.add_middleware(Results(backend=RedisBackend(client=client("BENCH_RESULTS"))))
dramatiq.set_broker(broker)

actors = {
    each: dramatiq.actor(getattr(workload, each), actor_name=each, store_results=True) for each in ("io", "noop")
}

if __name__ == "__main__":
    for _ in range(int(sys.argv[2])):
        actors[sys.argv[1]].send()
