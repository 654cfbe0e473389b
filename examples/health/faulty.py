"""
A program with four faults of asyncio, each on a loop of its own, made on purpose: see `demo.py`.

It prints the port of its metrics, then a line when its monitor has assessed them twice, and ends with its input.
"""

import asyncio
import sys
import threading

import httpx
from prometheus_client import CollectorRegistry, start_http_server

import homeloop
from homeloop import HealthReport, LoopLocal, LoopRuntime, trace
from homeloop.adapters import prometheus
from homeloop.async_utils import start_event_loop_monitoring

INTERVAL = 2.0  # seconds between two assessments

checkout, mails, shop, producer, consumer = (
    LoopRuntime(name=name) for name in ("checkout", "mails", "shop", "producer", "consumer")
)
orders = LoopLocal(lambda: httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=2)), name="orders")
kept: list[object] = []  # a task that nobody refers to may be collected


async def block(over: threading.Event) -> None:
    """Fault 1: wait on the loop as only a thread may."""
    over.wait()


async def poll_for_ever() -> None:
    """What fault 2 starts."""
    await asyncio.Event().wait()


async def leak() -> None:
    """Fault 2: start tasks that never end."""
    kept.extend(asyncio.create_task(poll_for_ever()) for _ in range(60))


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve as a server that hangs."""
    await reader.read()
    writer.close()


async def exhaust() -> None:
    """Fault 3: ask a server that hangs, with no time limit, five times with two connections."""
    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    client = await orders.get()
    kept.extend((server, *(asyncio.create_task(client.get(f"http://{host}:{port}/")) for _ in range(5))))


async def expect() -> "asyncio.Queue[str]":
    """Wait for an order on this loop."""
    queue: asyncio.Queue[str] = asyncio.Queue()
    kept.append(asyncio.create_task(queue.get()))
    await asyncio.sleep(0)  # the task waits now
    return queue


async def put(queue: "asyncio.Queue[str]") -> None:
    """Fault 4: give to a queue of another loop, which does not wake up."""
    queue.put_nowait("order 1")


def main() -> None:
    """Make the faults, and stay."""
    trace.enable(
        2
    )  # as HOMELOOP_TRACE=2 does: fault 4 is seen by tracing alone, and the page tells where tasks are made
    start_event_loop_monitoring(interval=INTERVAL)
    registry = CollectorRegistry()
    prometheus.install(registry)
    server, _ = start_http_server(0, addr="127.0.0.1", registry=registry)
    print(server.server_port, flush=True)

    over = threading.Event()
    blocked = checkout.submit(block, over)
    mails.run(leak)
    shop.run(exhaust)
    consumer.run(put, producer.run(expect))

    assessments = threading.Semaphore(0)

    def count(_: HealthReport) -> None:
        assessments.release()

    homeloop.default_monitor().listen(count)
    for _ in range(2):
        assessments.acquire()
    print("assessed twice", flush=True)
    sys.stdin.read()
    over.set()
    blocked.result()


if __name__ == "__main__":
    main()
