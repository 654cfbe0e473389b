"""What processes hold, once a second."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import asyncpg
import psutil
from installations import Installation
from load import Load


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at one process, or at the database."""

    at: float  # seconds since the first
    line: str  # what it belongs to: "API", "worker", "PostgreSQL"
    pid: int
    memory: float = 0.0  # MB, resident
    descriptors: int = 0
    sockets: int = 0
    threads: int = 0
    connections: int = 0  # of the database, all processes together
    runs: int = 0  # ended so far


class Sampler:
    """Samples on a thread of its own."""

    def __init__(self, installation: Installation, load: Load) -> None:
        self._installation = installation
        self._load = load
        self._is_over = threading.Event()
        self.samples: list[Sample] = []

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Sample while the body runs."""
        thread = threading.Thread(target=self._sample, name="sampler")
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()

    def _sample(self) -> None:
        begun = time.monotonic()
        while not self._is_over.wait(1.0):
            at = time.monotonic() - begun
            with suppress(
                psutil.Error, IndexError, OSError
            ):  # it has just ended; the next look finds its successor
                for line, pids in self._installation.processes().items():
                    self.samples += [self._of(at, line, pid) for pid in pids]
            with suppress(OSError, ValueError, asyncpg.PostgresError, TimeoutError):
                runs = self._load.ended.total()
                self.samples.append(
                    Sample(at, "PostgreSQL", 0, connections=asyncio.run(self._connections()), runs=runs)
                )

    @staticmethod
    def _of(at: float, line: str, pid: int) -> Sample:
        process = psutil.Process(pid)
        with process.oneshot():
            return Sample(
                at,
                line,
                pid,
                process.memory_info().rss / 1e6,
                process.num_fds(),
                len(process.net_connections("all")),
                process.num_threads(),
            )

    async def _connections(self) -> int:
        connection = await asyncpg.connect(self._installation.database_url, timeout=5)
        try:
            query = "SELECT count(*) - 1 FROM pg_stat_activity WHERE datname = current_database()"
            return int(await connection.fetchval(query, timeout=5))
        finally:
            await connection.close(timeout=5)
