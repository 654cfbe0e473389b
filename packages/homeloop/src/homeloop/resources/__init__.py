"""Resources that live on a loop: one per loop, opened, used and closed there."""

from homeloop.resources._loop_local import LoopLocal, ResourceStatistics

__all__ = ("LoopLocal", "ResourceStatistics")
