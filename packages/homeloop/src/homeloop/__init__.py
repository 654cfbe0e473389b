"""homeloop: every asyncio object has a home loop; bring the code to the loop, never the loop to the code."""

from homeloop._affinity import Affinity
from homeloop._events import Event, Instrument, add_instrument
from homeloop.callbacks import BoundCallback, Delivery, bind_callback
from homeloop.resources import LoopLocal, ResourceStatistics
from homeloop.runtime import (
    LoopRuntime,
    RuntimeStatistics,
    arun,
    default_runtime,
    enter,
    iterate,
    run,
    submit,
    sync,
)

__all__ = (
    "Affinity",
    "BoundCallback",
    "Delivery",
    "Event",
    "Instrument",
    "LoopLocal",
    "LoopRuntime",
    "ResourceStatistics",
    "RuntimeStatistics",
    "add_instrument",
    "arun",
    "bind_callback",
    "default_runtime",
    "enter",
    "iterate",
    "run",
    "submit",
    "sync",
)
