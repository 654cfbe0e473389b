"""Who waits for whom: loops' own threads that block in ``run`` for another loop."""

import threading
from _thread import allocate_lock

from homeloop.errors import DeadlockError
from homeloop.runtime._probe import thread_stack

_lock = allocate_lock()
_waits: dict[int, int] = {}
"""The thread of a blocked loop, and the thread of the loop it waits for."""

loop_threads: set[int] = set()
"""The threads that run a runtime's loop. Only their waits matter here: nobody waits for other threads."""


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
    raise DeadlockError(tuple(_describe(each) for each in chain))


def end_wait(me: int) -> None:
    """Note that the calling thread goes on."""
    _waits.pop(me, None)


def forget_parent() -> None:
    """Start anew in a forked child."""
    global _lock
    _lock = allocate_lock()
    loop_threads.clear()
    _waits.clear()


def _describe(ident: int) -> str:
    name = next((thread.name for thread in threading.enumerate() if thread.ident == ident), "?")
    return f"{name}: {' > '.join(thread_stack(ident, 12))}"
