"""Health: what every event loop of a process is doing, for machines and for people."""

from homeloop.health._default import default_monitor
from homeloop.health._door import LocalProcess, ask_process, local_processes
from homeloop.health._metrics import METRICS, Measurement, Metric, measure
from homeloop.health._monitor import HealthMonitor
from homeloop.health._page import HealthPage
from homeloop.health._pulse import Lag, Stall
from homeloop.health._report import (
    Finding,
    HealthReport,
    Incident,
    LoopHealth,
    ResourceHealth,
    RuntimeHealth,
    SizingHint,
)
from homeloop.health._thresholds import HealthThresholds

__all__ = (
    "Finding",
    "HealthMonitor",
    "HealthPage",
    "HealthReport",
    "HealthThresholds",
    "Incident",
    "Lag",
    "LocalProcess",
    "LoopHealth",
    "METRICS",
    "Measurement",
    "Metric",
    "ResourceHealth",
    "RuntimeHealth",
    "SizingHint",
    "Stall",
    "ask_process",
    "default_monitor",
    "local_processes",
    "measure",
)
