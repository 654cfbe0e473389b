"""
What does a runtime weigh, what does a call in flight, and does anything stay?

Each peer is measured in fresh processes of its own, after a first runtime and a first call have
imported and made what is made once. Memory is the process's unique set size, from
``/proc/self/smaps_rollup``: what the kernel would get back if the process ended. Linux only.

Usage: python bench/memory.py [--json FILE]
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

from calls import MEASURED, noop
from peers import PEERS, Opened, Work, all_awake, asleep, failing, sleeping
from rounds import versions

FEW, MANY = 50, 200  # runtimes
IN_FLIGHT = 10_000
FINISHED, FAILED = 100_000, 1_000  # calls


def unique_memory() -> int:
    """The process's unique set size in kB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:")))


def descriptors() -> int:
    """How many descriptors the process has."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - they have no paths


def weigh_runtimes(open_one: Callable[[], Opened], count: int) -> dict[str, float]:
    """
    What each of ``count`` runtimes takes that has served a call, and what is left of them after close.

    They are opened and closed twice. The memory that the first ones leave is mostly room that the
    allocators keep, so for the second ones the objects are counted that the collector knows.
    """
    first = open_one()
    first.run(noop)
    start = _taken()
    opened = _open(open_one, count)
    full = _taken()
    found = {what: (full[what] - start[what]) / count for what in start}
    if first.close is not None:
        _close(opened)
        once = _taken()
        _close(_open(open_one, count))
        twice = _taken()
        found["kept"] = (once["kB"] - start["kB"]) / count
        found["left objects"] = twice["objects"] - once["objects"]
        for what in ("files", "threads"):
            found[f"left {what}"] = twice[what] - start[what]
    return found


def _taken() -> dict[str, int]:
    gc.collect()
    return {
        "kB": unique_memory(),
        "objects": len(gc.get_objects()),
        "files": descriptors(),
        "threads": threading.active_count(),
    }


def _open(open_one: Callable[[], Opened], count: int) -> list[Opened]:
    opened = [open_one() for _ in range(count)]
    for each in opened:
        each.run(noop)
    return opened


def _close(opened: list[Opened]) -> None:
    while opened:
        close = opened.pop().close
        if close is not None:
            close()


def weigh_calls(open_one: Callable[[], Opened]) -> dict[str, float]:
    """What a call in flight takes, and what calls leave behind."""
    opened = open_one()
    opened.run(noop)
    found: dict[str, float] = {}
    if opened.submit is not None:
        found["in flight"] = _in_flight(opened.run, opened.submit)
    found |= _growth("finished", lambda: opened.run(noop), FINISHED)
    found |= _growth("failed", lambda: _fail(opened.run), FAILED)
    if opened.submit is not None:
        submit = opened.submit
        found |= _growth("cancelled", lambda: submit(sleeping).cancel(), FAILED, lambda: opened.run(all_awake))
    return found


def _in_flight(run: Callable[[Work], object], submit: Callable[[Work], "Future[Any]"]) -> float:
    """Bytes per call."""
    gc.collect()
    before = unique_memory()
    calls = [submit(sleeping) for _ in range(IN_FLIGHT)]
    run(noop)  # so they have begun
    assert len(asleep) == IN_FLIGHT
    weight = (unique_memory() - before) * 1024 / IN_FLIGHT
    for call in calls:
        call.cancel()
    wait(calls)
    run(all_awake)
    return weight


def _fail(run: Callable[[Work], object]) -> None:
    try:
        run(failing)
    except ValueError:
        pass


def _growth(
    name: str, call: Callable[[], object], count: int, settle: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """
    How many kB and objects ``count`` calls leave behind, and how many objects wait for the collector.

    The first tenth of them goes before, so that whatever keeps spare room has it.
    """
    for _ in range(count // 10):
        call()
    settle()
    gc.collect()
    gc.disable()
    memory, objects = unique_memory(), len(gc.get_objects())
    for _ in range(count):
        call()
    settle()
    found: dict[str, float] = {f"{name}: kB": unique_memory() - memory, f"{name}: cyclic": gc.collect()}
    found[f"{name}: objects"] = len(gc.get_objects()) - objects
    gc.enable()
    return found


# -- the report -----------------------------------------------------------------------------------------


def in_fresh_process(peer: str, task: str) -> dict[str, float] | None:
    """Measure one thing about one peer; None if the peer is not installed."""
    argv = [sys.executable, __file__, "--peer", peer, "--task", task]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    if "ModuleNotFoundError" in ended.stderr:
        return None
    if ended.returncode != 0:
        raise SystemExit(ended.stderr)
    found: dict[str, float] = json.loads(ended.stdout)
    return found


def show(results: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print the two tables in Markdown."""
    print("\n### A runtime\n")
    each = [f"kB each, of {count}" for count in (FEW, MANY)]
    _row("", *each, "descriptors each", "kept after close", f"left by {MANY} more")
    _row(*["---"] * 6)
    for peer, found in results.items():
        few, many = found[str(FEW)], found[str(MANY)]
        kept = left = "cannot be closed"
        if "kept" in many:
            kept = f"{many['kept']:.0f} kB each"
            left = " ".join(f"{many[f'left {what}']:.0f} {what}" for what in ("objects", "files", "threads"))
        _row(peer, f"{few['kB']:.0f}", f"{many['kB']:.0f}", f"{many['files']:.1f}", kept, left)
    print("\n### Calls\n")
    kinds = {"finished": FINISHED, "failed": FAILED, "cancelled": FAILED}
    _row("", "bytes in flight", *[f"left by {count} {kind}" for kind, count in kinds.items()])
    _row(*["---"] * 5)
    for peer, found in results.items():
        calls = found["calls"]
        weight = f"{calls['in flight']:.0f}" if "in flight" in calls else "-"
        _row(peer, weight, *[_left(calls, kind) for kind in kinds])


def _left(calls: dict[str, float], kind: str) -> str:
    if f"{kind}: kB" not in calls:
        return "-"
    return " ".join(f"{calls[f'{kind}: {what}']:.0f} {what}" for what in ("kB", "objects", "cyclic"))


def _row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |".replace("  ", " "))


def main() -> None:
    """Measure each peer in processes of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="also write the figures there")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        open_one = PEERS[options.peer]
        found = weigh_calls(open_one) if options.task == "calls" else weigh_runtimes(open_one, int(options.task))
        json.dump(found, sys.stdout)
        sys.stdout.flush()
        os._exit(0)  # peers' threads would keep us
    print(versions(*MEASURED))
    results: dict[str, dict[str, dict[str, float]]] = {}
    for peer in PEERS:
        measured = {task: in_fresh_process(peer, task) for task in (str(FEW), str(MANY), "calls")}
        installed = {task: found for task, found in measured.items() if found is not None}
        if installed:
            results[peer] = installed
    show(results)
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
