"""The samples of health monitoring in the source documents run as written, with other import lines."""

import inspect
from typing import Any

import homeloop
from homeloop.async_utils import EventLoopHealthMonitor, start_event_loop_monitoring

USAGE = """
from homeloop.async_utils import start_event_loop_monitoring, get_event_loop_health

# Start monitoring (typically in app startup)
start_event_loop_monitoring(interval=30.0)

# Check health status
health = get_event_loop_health()
print(f"Status: {health['status']}")
print(f"Recommendations: {health['recommendations']}")
"""


def test_f2_event_loop_health_monitoring(script: Any) -> None:
    """001, "Event Loop Health Monitoring", "Usage"."""
    ended = script(USAGE)
    assert (ended.stdout, ended.stderr) == ("Status: healthy\nRecommendations: []\n", "")


IN_AN_APPLICATION = """
import asyncio
from homeloop.async_utils import (
    get_event_loop_health, start_event_loop_monitoring, stop_event_loop_monitoring
)

async def app():
    start_event_loop_monitoring()

    print(get_event_loop_health())

    health = get_event_loop_health()
    assert health["monitored"] and health["status"] == "healthy", health
    assert [loop["owner"] for loop in health["loops"]] == ["watched"], health
    assert health["total_tasks"] == health["pending_tasks"] == health["foreign_tasks"] == 1, health
    assert health["langgraph_tasks"] == 0, health

asyncio.run(app())
stop_event_loop_monitoring()
"""


def test_f2_for_new_development(script: Any) -> None:
    """001, "For New Development" 3, and "Health Status Check"; the loop it is started on is watched."""
    ended = script(IN_AN_APPLICATION)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("{'status': 'healthy', 'recommendations': []")


THRESHOLDS = """
import homeloop
from homeloop.async_utils import start_event_loop_monitoring, stop_event_loop_monitoring

start_event_loop_monitoring(5, thresholds=homeloop.HealthThresholds(tasks=200))
start_event_loop_monitoring(10)
assert homeloop.default_monitor().thresholds.tasks == 200
stop_event_loop_monitoring()
assert not homeloop.default_monitor().is_started
"""


def test_f2_thresholds_can_be_given(script: Any) -> None:
    """They stay when it is started again without."""
    ended = script(THRESHOLDS)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_f2_documented_names() -> None:
    """The interval is 30 seconds unless it is said; the monitor has the name that the documents give it."""
    assert inspect.signature(start_event_loop_monitoring).parameters["interval"].default == 30.0
    assert isinstance(homeloop.default_monitor(), EventLoopHealthMonitor)
