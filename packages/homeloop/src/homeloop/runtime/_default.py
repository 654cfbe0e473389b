"""The process's default runtime."""

from homeloop.runtime._fork import forget_in_child
from homeloop.runtime._life import has_exited
from homeloop.runtime._originals import RLock
from homeloop.runtime._runtime import LoopRuntime


class _Default:
    """The process's default runtime."""

    def __init__(self) -> None:
        self.runtime: LoopRuntime | None = None
        self._making = RLock()  # re-entered by signal handlers and finalizers

    def make(self) -> LoopRuntime:
        made = LoopRuntime()  # unlocked: a finalizer that runs meanwhile may want one, too. It starts nothing.
        forget_in_child(self)
        with self._making:
            if self.runtime is None or (self.runtime.is_closed and not has_exited()):
                self.runtime = made
            return self.runtime

    def forget_parent(self) -> None:
        self._making = RLock()


_default = _Default()


def default_runtime() -> LoopRuntime:
    """
    Return the process's default runtime, which `homeloop.run` and its kin use. Starts nothing.

    A default runtime that was closed is replaced by a new one, except while the interpreter exits.
    """
    runtime = _default.runtime
    if runtime is None or runtime.is_closed:
        return _default.make()
    return runtime
