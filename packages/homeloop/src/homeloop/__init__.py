"""homeloop: every asyncio object has a home loop; bring the code to the loop, never the loop to the code."""

import importlib
import os
import warnings
from typing import TYPE_CHECKING

from homeloop._affinity import Affinity
from homeloop._events import Event, Instrument, add_instrument, tell_worker_ended
from homeloop._figures import label_tasks
from homeloop._user import User, as_user, current_user
from homeloop.batch import map_concurrent
from homeloop.callbacks import BoundCallback, Delivery, bind_callback
from homeloop.isolation import (
    EnclosedBlock,
    IsolatedScope,
    Isolation,
    IsolationExecutor,
    IsolationStatistics,
    KindStatistics,
    Report,
    RunOptions,
    TierStatistics,
    current_report,
    default_executor,
    enclosed,
    isolated,
    isolation_of,
    run_isolated,
    run_isolated_sync,
    stream_isolated,
)
from homeloop.resources import (
    InstanceStatistics,
    KeyedLoopLocal,
    LoopGuard,
    LoopLocal,
    PoolStatistics,
    ResourceStatistics,
    check_loop,
    guard,
    resource_scope,
)
from homeloop.runtime import (
    LoopRuntime,
    RuntimeStatistics,
    WorkerStatistics,
    arun,
    default_runtime,
    enter,
    iterate,
    run,
    set_trace_level,
    submit,
    sync,
)

if TYPE_CHECKING:
    from homeloop.diagnosis import Diagnosis, detect_cross_loop_issue, diagnose
    from homeloop.health import (
        METRICS,
        Finding,
        HealthMonitor,
        HealthPage,
        HealthReport,
        HealthThresholds,
        Incident,
        Lag,
        LocalProcess,
        LoopHealth,
        Measurement,
        Metric,
        ResourceHealth,
        RuntimeHealth,
        SizingHint,
        Stall,
        ask_process,
        default_monitor,
        local_processes,
        measure,
    )

__all__ = (
    "Affinity",
    "BoundCallback",
    "Delivery",
    "Diagnosis",
    "EnclosedBlock",
    "Event",
    "Finding",
    "HealthMonitor",
    "HealthPage",
    "HealthReport",
    "HealthThresholds",
    "Incident",
    "InstanceStatistics",
    "Instrument",
    "IsolatedScope",
    "Isolation",
    "IsolationExecutor",
    "IsolationStatistics",
    "KeyedLoopLocal",
    "KindStatistics",
    "Lag",
    "LocalProcess",
    "LoopGuard",
    "LoopHealth",
    "LoopLocal",
    "LoopRuntime",
    "METRICS",
    "Measurement",
    "Metric",
    "PoolStatistics",
    "Report",
    "ResourceHealth",
    "ResourceStatistics",
    "RunOptions",
    "RuntimeHealth",
    "RuntimeStatistics",
    "SizingHint",
    "Stall",
    "TierStatistics",
    "User",
    "WorkerStatistics",
    "add_instrument",
    "arun",
    "as_user",
    "ask_process",
    "bind_callback",
    "check_loop",
    "current_report",
    "current_user",
    "default_executor",
    "default_monitor",
    "default_runtime",
    "detect_cross_loop_issue",
    "diagnose",
    "enclosed",
    "enter",
    "guard",
    "isolated",
    "isolation_of",
    "iterate",
    "label_tasks",
    "local_processes",
    "map_concurrent",
    "measure",
    "resource_scope",
    "run",
    "run_isolated",
    "run_isolated_sync",
    "stream_isolated",
    "submit",
    "sync",
    "tell_worker_ended",
)

_DIAGNOSIS = ("Diagnosis", "detect_cross_loop_issue", "diagnose")


def __getattr__(name: str) -> object:
    """Load the diagnosis, or health, when somebody first asks for it: most programs never do."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module("homeloop.diagnosis" if name in _DIAGNOSIS else "homeloop.health")
    globals()[name] = value = getattr(module, name)
    return value


_level = os.environ.get("HOMELOOP_TRACE", "").strip() or "0"
if _level not in ("0", "1", "2", "3"):
    warnings.warn(
        f"HOMELOOP_TRACE={_level} is no level of tracing, so nothing is traced; set it to 1, 2 or 3",
        RuntimeWarning,
        stacklevel=2,
    )
elif _level != "0":
    set_trace_level(int(_level))
