"""Resources that live on a loop: one per loop, opened, used and closed there."""

from homeloop._figures import InstanceStatistics, PoolStatistics, ResourceStatistics
from homeloop.resources._guard import LoopGuard, check_loop, guard
from homeloop.resources._keyed import KeyedLoopLocal
from homeloop.resources._loop_local import LoopLocal
from homeloop.resources._scope import Scope, resource_scope

__all__ = (
    "InstanceStatistics",
    "KeyedLoopLocal",
    "LoopGuard",
    "LoopLocal",
    "PoolStatistics",
    "ResourceStatistics",
    "Scope",
    "check_loop",
    "guard",
    "resource_scope",
)
