"""The pieces of work that the queues' workers do, and the record of when they did."""

import asyncio
import os
import struct
import time

ASLEEP = 0.05  # seconds that the I/O takes
LONG = 3600.0  # seconds: to the worker's end

_record = os.open(os.environ["BENCH_RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def _note(begin: float) -> float:
    """Record one task, in one write: several processes may do so."""
    end = time.monotonic()
    os.write(_record, struct.pack("dd", begin, end))
    return end


async def io() -> float:
    """Wait as for an answer from elsewhere."""
    begin = time.monotonic()
    await asyncio.sleep(ASLEEP)
    return _note(begin)


async def noop() -> float:
    """Do nothing."""
    return _note(time.monotonic())


async def asleep() -> None:
    """Begin, and wait until the worker ends."""
    _note(time.monotonic())
    await asyncio.sleep(LONG)


def io_sync() -> float:
    """Wait likewise, for workers whose blocking calls do not block (gevent)."""
    begin = time.monotonic()
    time.sleep(ASLEEP)
    return _note(begin)


def noop_sync() -> float:
    """Do nothing, too."""
    return _note(time.monotonic())


def asleep_sync() -> None:
    """Begin, and wait likewise."""
    _note(time.monotonic())
    time.sleep(LONG)
