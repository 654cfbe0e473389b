"""``homeloop ps``: what the event loops of this user's processes are doing."""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from homeloop import LocalProcess, ask_process, local_processes

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # pyright: ignore[reportPrivateUsage]

Figures = dict[str, Any]  # Any: what JSON knows


def add_to(commands: "Commands") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "ps",
        help="say what the event loops of your processes are doing",
        description="Ask your processes that have a started health monitor. Exits with 1 if one is not healthy.",
    )
    parser.add_argument("pid", nargs="?", type=int, metavar="PID", help="ask this process only")
    parser.add_argument("--json", action="store_true", help="print one JSON object a process, a line each")
    parser.add_argument("--stacks", action="store_true", help="print what the threads and tasks of PID do")
    parser.add_argument(
        "--timeout",
        type=float,
        default=2.0,
        metavar="SECONDS",
        help="how long each process may take to answer (2)",
    )
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    if chosen.stacks and chosen.pid is None:
        sys.stderr.write("homeloop ps: --stacks needs a PID\n")
        return 2
    try:
        if chosen.stacks:
            stacks = ask_process(chosen.pid, "stacks", chosen.timeout)
            sys.stdout.write(json.dumps(stacks) + "\n" if chosen.json else stacks_text(stacks))
            return 0
        found = local_processes(chosen.timeout, None if chosen.pid is None else [chosen.pid])
    except (OSError, ValueError) as error:
        sys.stderr.write(f"homeloop ps: {error}\n")
        return 2
    if not found:
        which = "no process of yours has" if chosen.pid is None else f"process {chosen.pid} has not"
        sys.stderr.write(f"homeloop ps: {which} a started health monitor; see start_event_loop_monitoring()\n")
        return 2
    for process in found:
        figures = {"pid": process.pid, "state": process.state, **process.report}
        sys.stdout.write(json.dumps(figures) + "\n" if chosen.json else "\n".join(process_lines(process)) + "\n")
    return int(any(each.report.get("status") != "healthy" for each in found))


def process_lines(process: LocalProcess) -> Iterator[str]:
    """Describe a process: what it is, its loops, its resources, what to do."""
    report = process.report
    if process.state != "answered":
        why = "stopped" if process.state == "stopped" else "it does not answer; is the interpreter's lock held?"
        yield f"{process.pid}  {why}"
        return
    yield f"{process.pid}  {report['status']}  {report['command']}"
    for loop in report["loops"]:
        yield f"  loop      {loop['name']}: {', '.join(_of_loop(loop))}"
    for runtime in report["runtimes"]:
        counts = runtime["statistics"]
        yield (
            f"  runtime   {runtime['name']}: {counts['in_flight']} calls in flight, {counts['waiting']} waiting, "
            f"{counts['abandoned']} abandoned, {counts['finished']} finished, {counts['restarts']} restarts"
        )
    started, ended, lost = (report["counts"].get(f"Worker{fate}", 0) for fate in ("Started", "Ended", "Lost"))
    if started or ended or lost:
        yield f"  workers   {started} started, {ended} recycled, {lost} lost"
    for resource in report["resources"]:
        counts = resource["statistics"]
        yield (
            f"  resource  {resource['name']}: {counts['live']} open, {counts['in_use']} leases, "
            f"{counts['waiting']} callers waiting"
        )
        for instance in counts["instances"]:
            if instance["pool"] is not None:
                where = f"{resource['name']} on loop {instance['home']['loop']}"
                yield f"  pool      {where}: {_of_pool(instance['pool'])}"
    for recommendation in report["recommendations"]:
        yield f"  ! {recommendation}"


def stacks_text(stacks: Figures) -> str:
    """Describe what threads and tasks do, the innermost frame last."""
    lines: list[str] = []
    for thread in stacks["threads"]:
        lines += [f"thread {thread['name']}", *(f"  {frame}" for frame in thread["stack"])]
    for task in stacks["tasks"]:
        lines += [
            f"task {task['name']} ({task['coroutine']}) on loop {task['loop']}",
            *(f"  {frame}" for frame in task["waiting_at"]),
        ]
    if stacks["pending_tasks"] > len(stacks["tasks"]):
        lines.append(f"and {stacks['pending_tasks'] - len(stacks['tasks'])} more tasks")
    return "\n".join(lines) + "\n"


def _of_loop(loop: Figures) -> Iterator[str]:
    yield f"{loop['owner']}, {loop['state']}"
    if loop["stall"] is not None:
        yield f"for {loop['stall']['seconds']:.1f} s at {' > '.join(loop['stall']['blocked_at'])}"
    if loop["lag"] is not None:
        yield f"lag {1000 * loop['lag']['p50']:.1f} ms (p99 {1000 * loop['lag']['p99']:.1f})"
    if loop["utilisation"] is not None:
        yield f"{loop['utilisation']:.0%} busy"
    yield f"{loop['pending']} tasks" + (f" ({loop['langgraph']} of LangGraph)" if loop["langgraph"] else "")


def _of_pool(pool: Figures) -> str:
    limit = "" if pool["limit"] is None else f" of {pool['limit']}"
    waiting = "" if pool["waiting"] is None else f", {pool['waiting']} waiting"
    return f"{pool['in_use']}{limit} in use{waiting}, {pool['size']} open"
