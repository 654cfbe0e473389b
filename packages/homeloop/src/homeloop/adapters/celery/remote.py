"""
``celery inspect homeloop``: the health of a worker's event loops, by remote control.

Import this module where the app is made, on both sides: Celery knows the command then. The worker's processes must
have their monitors started (`homeloop.async_utils.start_event_loop_monitoring`, in the app's module). Those of a
prefork pool are asked over their local sockets, so one whose loop is blocked answers, too.
"""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import os
from typing import Any

from celery.worker.control import inspect_command

from homeloop import LocalProcess, default_monitor, local_processes

__all__ = ("homeloop",)

_BUDGET = 0.8
"""Seconds that all processes may take to answer: the consumer stands still, and who asks waits for 1 s."""


@inspect_command(  # type: ignore[untyped-decorator]
    help="Health of the event loops: a report for each process that runs tasks, by its pid."
)
def homeloop(state: Any) -> dict[str, dict[str, Any]]:
    """
    Tell how the loops of a worker's processes are, by pid; see `homeloop.HealthReport.as_dict`.

    A process that does not answer has the status ``"stopped"``, by SIGSTOP for one, or ``"silent"``; one that
    cannot be asked has ``"unknown"``.
    """
    pids: list[int] | None = state.consumer.pool.info.get("processes")
    if pids is None:
        return {str(os.getpid()): default_monitor().report().as_dict()}
    try:
        found = {process.pid: process for process in local_processes(_BUDGET, pids)}
    except OSError as error:
        return {str(pid): {"status": "unknown", "recommendations": [str(error)]} for pid in pids}
    return {str(pid): _told(pid, found.get(pid)) for pid in pids}


_SILENT = {
    "stopped": "process {pid} is stopped, by SIGSTOP or a debugger; kill -CONT {pid} lets it go on",
    "silent": "see what process {pid} does, with py-spy dump for one",
}


def _told(pid: int, process: LocalProcess | None) -> dict[str, Any]:
    if process is None:
        why = f"process {pid} has no health monitor that can be asked"
        return {"status": "unknown", "recommendations": [why]}
    if process.state == "answered":
        return process.report
    return {"status": process.state, "recommendations": [_SILENT[process.state].format(pid=pid)]}
