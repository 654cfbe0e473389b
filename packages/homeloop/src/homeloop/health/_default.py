"""The process's own health monitor."""

from homeloop.health._monitor import HealthMonitor

_default = HealthMonitor(answers_owner=True)


def default_monitor() -> HealthMonitor:
    """Return the process's own health monitor. Starts nothing."""
    return _default
