"""F4, metrics: what Prometheus and OpenTelemetry are told, by one process and by several."""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from homeloop import METRICS, HealthMonitor, LoopLocal, LoopRuntime, measure
from homeloop.adapters import opentelemetry, prometheus
from homeloop.adapters.prometheus import prometheus_name

REFERENCE = Path(__file__).parents[4] / "docs" / "reference"
DOCUMENTED = REFERENCE / "metrics.md"
DASHBOARD = REFERENCE / "grafana-homeloop.json"
ROW = re.compile(
    r"^\| `([a-z0-9._]+)` \| `([a-z0-9_]+)` \| (gauge|counter) \| `(\S+)` \| (.*) \| (.*) \|$", re.MULTILINE
)


def test_f4_the_documented_metrics_are_those_that_there_are() -> None:
    """The table of docs/reference/metrics.md, in its order."""
    there_are = [
        (
            metric.name,
            prometheus_name(metric) + ("_total" if metric.kind == "counter" else ""),
            metric.kind,
            metric.unit,
            ", ".join(f"`{label}`" for label in metric.labels),
            metric.description,
        )
        for metric in METRICS
    ]
    assert ROW.findall(DOCUMENTED.read_text("utf-8")) == there_are


def test_f4_the_dashboard_asks_for_metrics_that_there_are(patient: HealthMonitor) -> None:
    """For each of them, under the name that the exporter tells Prometheus, and by labels that it has."""
    registry = CollectorRegistry()
    prometheus.install(registry, patient)
    exported = {
        line.split()[2]
        + ("_total" if line.endswith(" counter") and not line.split()[2].endswith("_total") else "")
        for line in generate_latest(registry).decode().splitlines()
        if line.startswith("# TYPE ")
    }
    labels = {prometheus_name(metric): {*metric.labels, "instance"} for metric in METRICS}
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    targets = [target for panel in panels for target in panel["targets"]]
    asked: set[str] = set()
    for target in targets:
        (name,) = re.findall(r"\b(?:homeloop|asyncio)_[a-z0-9_]+", target["expr"])
        asked.add(name)
        used = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert used <= labels[name.removesuffix("_total")], target
        assert target["expr"].count("(") == target["expr"].count(")")
        assert 'job=~"$job", instance=~"$instance"' in target["expr"]
    assert asked == exported
    assert {"datasource", "instance", "job"} == {each["name"] for each in dashboard["templating"]["list"]}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    cells = [
        (x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"


def samples(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    """Return what Prometheus would be told: values by name and labels' values."""
    text = generate_latest(registry).decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_f4_prometheus_is_told_what_is_measured(
    runtime: LoopRuntime, patient: HealthMonitor, settle: Callable[[LoopRuntime], None]
) -> None:
    """When it asks: every value of the report, under the documented names."""
    registry = CollectorRegistry()
    prometheus.install(registry, patient)
    pools = LoopLocal(asyncio.Event, name="events of prometheus")
    tasks: list[asyncio.Task[bool]] = []

    async def work() -> None:
        await pools.get()
        release = asyncio.Event()
        tasks.extend(asyncio.create_task(release.wait()) for _ in range(3))

    runtime.run(work)
    settle(runtime)
    told = samples(registry)
    assert told["asyncio_eventloop_tasks_pending", "test", "runtime"] == 3
    assert told["homeloop_calls_finished_total", "test"] == 1
    assert told["homeloop_resource_live", "events of prometheus"] == 1
    assert ("homeloop_health_status",) in told
    with pytest.raises(ValueError, match="Duplicated"):
        prometheus.install(registry, patient)


def test_f4_opentelemetry_is_told_what_is_measured(runtime: LoopRuntime, patient: HealthMonitor) -> None:
    """Names, units and attributes are the documented ones; counters are cumulative sums."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    opentelemetry.install(provider, patient)
    runtime.run(asyncio.sleep, 0)
    collected = reader.get_metrics_data()
    assert collected is not None
    told = {
        metric.name: metric for resource in collected.resource_metrics for scope in resource.scope_metrics
        for metric in scope.metrics
    }  # fmt: skip
    assert set(told) <= {metric.name for metric in METRICS}
    pending: Any = told["asyncio.eventloop.tasks.pending"]
    assert pending.unit == "{task}"
    assert {"loop": "test", "owner": "runtime"} in [dict(point.attributes) for point in pending.data.data_points]
    finished: Any = told["homeloop.calls.finished"]
    assert finished.data.is_monotonic
    assert [point.value for point in finished.data.data_points if point.attributes["runtime"] == "test"] == [1]
    provider.shutdown()


def test_f4_loops_of_one_name_are_told_together(patient: HealthMonitor) -> None:
    """So are all that nobody told of: a program that calls `asyncio.run` again and again makes no new values."""

    async def ask() -> dict[tuple[str, tuple[str, ...]], float]:
        release = asyncio.Event()
        task = asyncio.create_task(release.wait())
        told = {
            (each.metric.name, each.labels): each.value
            for each in measure(await asyncio.to_thread(patient.report))
        }
        release.set()
        await task
        return told

    with LoopRuntime(name="same") as one, LoopRuntime(name="same") as two:
        one.run(asyncio.sleep, 0)
        two.run(asyncio.sleep, 0)
        first = asyncio.run(ask())
        second = asyncio.run(ask())
    assert first["homeloop.calls.finished", ("same",)] == 2
    assert first["asyncio.eventloop.tasks.pending", ("", "unknown")] >= 2
    assert first.keys() == second.keys()


PROCESSES = """
import os, queue, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
import homeloop
from homeloop.adapters.prometheus import install
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

assessed = queue.SimpleQueue()
monitor = homeloop.default_monitor()
install()
monitor.listen(assessed.put)
monitor.start(interval=0.05)

async def nothing(): pass

def work(calls):
    for _ in range(calls):
        homeloop.run(nothing)
    for _ in range(3):
        assessed.get(timeout=20)  # what was done before the first of them is written when the third is

work(2)
children = []
for calls in (3, 4):
    written, write = os.pipe()
    stay, leave = os.pipe()
    pid = os.fork()
    if pid == 0:
        for end in (leave, *(other for _, other in children)):
            os.close(end)
        while not assessed.empty(): assessed.get()
        work(calls)
        os.write(write, b"1")
        os.read(stay, 1)
        os._exit(0)
    os.close(stay)
    os.read(written, 1)
    children.append((pid, leave))

def told():
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry).decode().splitlines()

lines = told()
assert 'homeloop_calls_finished_total{runtime="homeloop"} 9.0' in lines, lines
pids = [os.getpid(), *(pid for pid, _ in children)]
for pid in pids:
    loops = [line for line in lines if line.startswith("asyncio_eventloop_tasks{") and f'pid="{pid}"' in line]
    assert len(loops) == 1, lines
for pid, leave in children:
    os.close(leave)
    os.waitpid(pid, 0)
    mark_process_dead(pid)
lines = told()
assert 'homeloop_calls_finished_total{runtime="homeloop"} 9.0' in lines, lines
assert not any(f'pid="{pid}"' in line for pid, _ in children for line in lines), lines
monitor.stop()
print("told")
"""


def test_f4_several_processes_are_told_apart(script: Any, tmp_path: Path) -> None:
    """Gauges by process, while it lives; counters are added up, those of ended processes included."""
    ended = script(PROCESSES, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    assert (ended.returncode, ended.stdout) == (0, "told\n"), ended.stderr


def test_listeners_are_called_with_each_assessment(
    runtime: LoopRuntime, patient: HealthMonitor, heard: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """One that fails is logged and keeps nobody; one that was taken off is not called any more."""
    reports: SimpleQueue[Any] = SimpleQueue()
    failures: list[None] = []

    def fails(_: Any) -> None:
        failures.append(None)
        raise ZeroDivisionError

    unlisten = patient.listen(fails)
    patient.listen(reports.put)
    runtime.start()
    patient.start(interval=0.01)
    assert reports.get(timeout=20).monitored
    unlisten()
    unlisten()
    reports.get(timeout=20)
    count = len(failures)
    reports.get(timeout=20)
    reports.get(timeout=20)
    assert len(failures) <= count + 1, "an assessment may have been under way"
    assert "a listener of the health monitor failed" in caplog.text
