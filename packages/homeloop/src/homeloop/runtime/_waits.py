"""Who waits for whom: loops' own threads that block in ``run`` for another loop."""

from homeloop.errors import DeadlockError
from homeloop.runtime._originals import RLock, real_threading
from homeloop.runtime._probe import loop_threads, thread_stack

_lock = RLock()  # re-entered by signal handlers and finalizers
_waits: dict[int, int] = {}
"""The thread of a blocked loop, and the thread of the loop it waits for. Nobody waits for other threads."""


def awaited_by(me: int) -> int | None:
    """Return the thread whose loop a thread waits for; for `end_wait`."""
    return _waits.get(me)


def begin_wait(me: int, awaited: int | None) -> None:
    """
    Note that the calling thread, which runs a loop, blocks until the ``awaited`` thread's loop answers.

    Raises:
        DeadlockError: The awaited loop is blocked itself, and in the end for the calling thread.
    """
    with _lock:
        chain = [me]
        thread = awaited
        while thread is not None and thread != me:
            chain.append(thread)
            thread = _waits.get(thread)
        if thread is None:
            if awaited is not None:
                _waits[me] = awaited
            return
    raise DeadlockError(tuple(describe_thread(each) for each in chain))


def end_wait(me: int, before: int | None) -> None:
    """Note that the calling thread goes on, with what it waited for ``before`` if with anything."""
    if before is None:
        _waits.pop(me, None)
    else:
        _waits[me] = before


def forget_parent() -> None:
    """Start anew in a forked child."""
    global _lock
    _lock = RLock()
    loop_threads.clear()
    _waits.clear()


def describe_thread(ident: int) -> str:
    """Name a thread and tell what it is doing."""
    name = next((thread.name for thread in real_threading().enumerate() if thread.ident == ident), "?")
    return f"{name}: {' > '.join(thread_stack(ident, 12))}"
