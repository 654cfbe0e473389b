"""The peaks: the most that was wanted at the same time, of what was seen."""

from collections.abc import Iterable
from weakref import WeakKeyDictionary

from homeloop._figures import ResourceSource
from homeloop.health._report import ResourceHealth, RuntimeHealth
from homeloop.runtime import Life


class Peaks:
    """What runtimes and resources did at most when they were looked at. Thread: any."""

    def __init__(self) -> None:
        self._in_flight: WeakKeyDictionary[Life, int] = WeakKeyDictionary()
        self._leases: WeakKeyDictionary[ResourceSource, int] = WeakKeyDictionary()
        self._wanted: WeakKeyDictionary[ResourceSource, int] = WeakKeyDictionary()

    def of_runtimes(self, runtimes: Iterable[Life]) -> tuple[RuntimeHealth, ...]:
        """Look at runtimes; return their figures, by name."""
        found: list[RuntimeHealth] = []
        for runtime in runtimes:
            figures = runtime.statistics()
            most = self._in_flight[runtime] = max(figures.in_flight, self._in_flight.get(runtime, 0))
            found.append(RuntimeHealth(runtime.name, figures, most))
        return tuple(sorted(found, key=lambda each: each.name))

    def of_resources(self, resources: Iterable[ResourceSource]) -> tuple[ResourceHealth, ...]:
        """Look at resources; return the figures of those that were ever used, by name."""
        found: list[ResourceHealth] = []
        for resource in resources:
            figures = resource.statistics()
            now = max((instance.leases for instance in figures.instances), default=0)
            most = self._leases[resource] = max(now, self._leases.get(resource, 0))
            for pool in (each.pool for each in figures.instances if each.pool is not None):
                wanted = pool.in_use + (pool.waiting or 0)
                self._wanted[resource] = max(wanted, self._wanted.get(resource, 0))
            if figures.misses:
                found.append(ResourceHealth(resource.name, figures, most, self._wanted.get(resource)))
        return tuple(sorted(found, key=lambda each: each.name))
