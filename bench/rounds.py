"""Peers that do the same work by turns, so that what slows the machine slows all; and what was measured."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version


@dataclass
class Peer:
    """How the work is done, once, and how what is kept for it is closed."""

    work: Callable[[], object]
    close: Callable[[], object] = lambda: None


def stay_on_one_cpu() -> None:
    """Keep caller and loop on one CPU, so that rounds compare: between CPUs a wake-up costs what it likes."""
    if hasattr(os, "sched_setaffinity"):  # Linux only
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def in_rounds(
    peers: dict[str, Peer], rounds: int, seconds: float, others: dict[str, str]
) -> dict[str, dict[str, float]]:
    """
    Let each peer work for so many seconds in each round, with one caller; close them.

    Returns:
        Of each peer: ``rate``, how often a second its work succeeded (median); its median ratio to each of
        ``others``, by their keys, round by round; ``failed``, how often it failed.
    """
    rates: dict[str, list[float]] = {name: [] for name in peers}
    failures = dict.fromkeys(peers, 0)
    for _ in range(rounds):
        for name, peer in peers.items():
            rate, failed = _one_round(peer, seconds)
            rates[name].append(rate)
            failures[name] += failed
    for peer in peers.values():
        peer.close()

    def ratio(name: str, other: str) -> float:
        return statistics.median(ours / theirs for ours, theirs in zip(rates[name], rates[other], strict=True))

    return {
        name: {
            "rate": statistics.median(rates[name]),
            **{key: ratio(name, other) for key, other in others.items()},
            "failed": failures[name],
        }
        for name in peers
    }


def _one_round(peer: Peer, seconds: float) -> tuple[float, int]:
    done = failed = 0
    begin = time.perf_counter()
    while (spent := time.perf_counter() - begin) < seconds:
        try:
            peer.work()
            done += 1
        except Exception:  # the point of the peer that fails
            failed += 1
    return done / spent, failed


def versions(*names: str) -> str:
    """Return the interpreter, the system, and the versions of those packages that are installed."""
    found = []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return ", ".join((f"{python} on {platform.system()}", *found))
