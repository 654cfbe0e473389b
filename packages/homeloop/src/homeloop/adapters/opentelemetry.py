"""Export health to OpenTelemetry. Tested with opentelemetry-api 1.45."""

import time
from collections.abc import Iterable
from functools import partial

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider

from homeloop import METRICS, HealthMonitor, Measurement, Metric, default_monitor, measure

__all__ = ("install",)

_FRESH = 0.5
"""Seconds for which a measurement serves: OpenTelemetry asks for each metric apart, in a row. A guess."""


def install(provider: MeterProvider | None = None, monitor: HealthMonitor | None = None) -> None:
    """
    Export the health of this process, as long as it lives.

    A forked child exports what its own meter provider asks for: install it there, after that has been set up.

    Args:
        provider: The global one by default.
        monitor: The process's own by default. It must be started, or there is little to tell.

    Thread: any.
    """
    meter = (provider or get_meter_provider()).get_meter("homeloop")
    measured = _Measured(monitor or default_monitor())
    for metric in METRICS:
        make = meter.create_observable_gauge if metric.kind == "gauge" else meter.create_observable_counter
        make(metric.name, [partial(_observe, measured, metric)], metric.unit, metric.description)


class _Measured:
    """What was measured last, anew when it is old. Thread: any."""

    def __init__(self, monitor: HealthMonitor) -> None:
        self._monitor = monitor
        self._at = -_FRESH  # monotonic
        self._by_metric: dict[Metric, list[Measurement]] = {}

    def of(self, metric: Metric) -> list[Measurement]:
        """Return the values of a metric."""
        now = time.monotonic()
        if now - self._at >= _FRESH:
            by_metric: dict[Metric, list[Measurement]] = {}
            for each in measure(self._monitor.report()):
                by_metric.setdefault(each.metric, []).append(each)
            self._by_metric, self._at = by_metric, now
        return self._by_metric.get(metric, [])


def _observe(measured: _Measured, metric: Metric, _: CallbackOptions) -> Iterable[Observation]:
    return [
        Observation(each.value, dict(zip(metric.labels, each.labels, strict=True))) for each in measured.of(metric)
    ]
