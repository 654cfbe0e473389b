"""The measures of drivers' pools: how many connections there are, are in use, are waited for."""

from collections.abc import Callable
from typing import Any

from homeloop._events import MeasureFailed
from homeloop._figures import PoolStatistics
from homeloop.resources._products import Products

Measure = Callable[[Any], PoolStatistics | None]
"""
Takes an object of a product, gives what its pool tells; None if it has no pool. Any: objects of any product.

It is called on any thread while the pool works on its loop, so it only reads, and iterates over copies.
"""

GROUP = "homeloop.measures"

_measures: Products[Measure] = Products(GROUP, MeasureFailed)


def measured(value: object) -> Callable[[], PoolStatistics | None] | None:
    """
    Return a function that measures the pool of an object; None if its product has no measure installed.

    A measure is an entry point of the group ``homeloop.measures``, named as the top-level package of the product.
    One that fails is reported once, and objects of that class are not measured any more.

    Thread: the loop's own, as a module may have to be imported; what is returned may be called on any.
    """
    kind = type(value)
    if _measures.of(kind) is None:
        return None

    def measure() -> PoolStatistics | None:
        found = _measures.of(kind)
        try:
            return None if found is None else found(value)
        except Exception as error:
            _measures.give_up(kind, error)
            return None

    return measure
