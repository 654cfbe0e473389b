"""Export health to Prometheus, of one process or of several. Tested with prometheus-client 0.26."""

import os
from collections.abc import Iterator
from threading import Lock
from typing import TypeVar

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from homeloop import METRICS, HealthMonitor, HealthReport, Metric, default_monitor, measure

__all__ = ("HealthCollector", "install", "prometheus_name")

_UNITS = {"s": "_seconds", "1": "_ratio"}

Family = GaugeMetricFamily | CounterMetricFamily
Key = tuple[Metric, tuple[str, ...]]
M = TypeVar("M", Gauge, Counter)


def prometheus_name(metric: Metric) -> str:
    """Return what Prometheus calls a metric; of a counter, the name that ``_total`` is added to."""
    return metric.name.replace(".", "_") + _UNITS.get(metric.unit, "")


def install(registry: CollectorRegistry = REGISTRY, monitor: HealthMonitor | None = None) -> None:
    """
    Export the health of this process, and of those that are forked from it, as long as they live.

    Where ``PROMETHEUS_MULTIPROC_DIR`` is set, as it is for Celery's prefork pool and uvicorn's workers, every
    process writes there what it measures, once an interval of the monitor, and gauges have the label ``pid``; see
    the documentation of prometheus-client for how that is served. Elsewhere it is measured when Prometheus asks.

    Args:
        monitor: The process's own by default. It must be started, or there is little to tell.

    Raises:
        ValueError: It is installed in this registry already.

    Thread: any.
    """
    monitor = monitor or default_monitor()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        monitor.listen(_Mirror(registry).write)
    else:
        registry.register(HealthCollector(monitor))


class HealthCollector(Collector):
    """Measures when it is asked. Thread: any."""

    def __init__(self, monitor: HealthMonitor | None = None) -> None:
        self._monitor = monitor or default_monitor()

    def describe(self) -> Iterator[Family]:
        """Return what there may be, without measuring."""
        return map(_family, METRICS)

    def collect(self) -> Iterator[Family]:
        """Measure now."""
        families = {metric: _family(metric) for metric in METRICS}
        for each in measure(self._monitor.report()):
            families[each.metric].add_metric(each.labels, each.value)
        return iter(families.values())


class _Mirror:
    """
    Metric objects that are set to what is measured, as prometheus-client needs it where processes share a folder.

    Thread: one at a time, in each process.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._gauges: dict[Metric, Gauge] = {}
        self._counters: dict[Metric, Counter] = {}
        self._pid = os.getpid()
        self._told: dict[Key, float] = {}
        # Prometheus-client writes under a lock of its own; a child forked meanwhile would wait for that for ever.
        writing = self._writing = Lock()
        if hasattr(os, "register_at_fork"):  # not on Windows
            os.register_at_fork(
                before=writing.acquire, after_in_parent=writing.release, after_in_child=writing.release
            )
        for metric in METRICS:
            arguments = (prometheus_name(metric), metric.description, metric.labels)
            if metric.kind == "gauge":
                self._gauges[metric] = Gauge(*arguments, registry=registry, multiprocess_mode="liveall")
            else:
                self._counters[metric] = Counter(*arguments, registry=registry)

    def write(self, report: HealthReport) -> None:
        """Take over what a report says."""
        with self._writing:
            self._write(report)

    def _write(self, report: HealthReport) -> None:
        if self._pid != os.getpid():  # what was told before the fork is the parent's
            self._pid, self._told = os.getpid(), {}
        before, self._told = self._told, {}
        for each in measure(report):
            key = each.metric, each.labels
            self._told[key] = each.value
            if each.metric.kind == "gauge":
                _at(self._gauges[each.metric], each.labels).set(each.value)
            else:
                past = before.get(key, 0.0)
                grown = each.value - past if each.value >= past else each.value  # a new loop counts from 0
                _at(self._counters[each.metric], each.labels).inc(grown)
        for metric, labels in before.keys() - self._told.keys():
            if metric.kind == "gauge":  # shared by processes, a label cannot be taken back
                _at(self._gauges[metric], labels).set(0.0)
            else:
                self._told[metric, labels] = before[metric, labels]


def _family(metric: Metric) -> Family:
    kind = GaugeMetricFamily if metric.kind == "gauge" else CounterMetricFamily
    return kind(prometheus_name(metric), metric.description, labels=metric.labels)


def _at(held: M, labels: tuple[str, ...]) -> M:
    return held.labels(*labels) if labels else held
