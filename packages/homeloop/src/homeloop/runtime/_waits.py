"""Who waits for whom: loops' own threads that block in ``run`` for another loop."""

import threading
from _thread import allocate_lock, get_ident

from homeloop.errors import DeadlockError
from homeloop.runtime._probe import thread_stack

_lock = allocate_lock()
_loop_threads: set[int] = set()
_waits: dict[int, int] = {}
"""The thread of a blocked loop, and the thread of the loop it waits for."""


def add_loop_thread() -> None:
    """Note that the calling thread runs a loop."""
    _loop_threads.add(get_ident())


def remove_loop_thread() -> None:
    """Note that the calling thread's loop has ended."""
    _loop_threads.discard(get_ident())


def begin_wait(awaited: int | None) -> bool:
    """
    Note that the calling thread blocks until the ``awaited`` thread's loop answers.

    Returns:
        Whether the wait was noted, and `end_wait` must be called. Only waits of loops' own threads
        are: other threads have nothing that anybody could wait for.

    Raises:
        DeadlockError: The awaited loop is blocked itself, and in the end for the calling thread.
    """
    me = get_ident()
    if me not in _loop_threads or awaited is None:
        return False
    with _lock:
        chain = [me]
        thread: int | None = awaited
        while thread is not None and thread != me:
            chain.append(thread)
            thread = _waits.get(thread)
        if thread is None:
            _waits[me] = awaited
            return True
    raise DeadlockError(tuple(_describe(each) for each in chain))


def end_wait() -> None:
    """Note that the calling thread goes on."""
    _waits.pop(get_ident(), None)


def forget_parent() -> None:
    """Start anew in a forked child."""
    global _lock
    _lock = allocate_lock()
    _loop_threads.clear()
    _waits.clear()


def _describe(ident: int) -> str:
    name = next((thread.name for thread in threading.enumerate() if thread.ident == ident), "?")
    return f"{name}: {' > '.join(thread_stack(ident, 12))}"
