"""Bells: what wakes a thread that sleeps in the kernel, for the price of one descriptor."""

import asyncio
import os
from collections.abc import Callable
from functools import partial

from homeloop.runtime._fork import forget_in_child


class Bell:
    """
    An eventfd: any thread may ring it, one listens.

    It wakes a thread at half the price of a lock. Who releases a lock does so with the interpreter
    lock in hand, so the thread that wakes goes straight back to sleep, for want of that one, and is
    woken again: four switches from thread to thread instead of two. A write gives it up first.

    The descriptor is closed when nobody refers to the bell any more, and not before: a late ringer
    must not write into what has got the same number since.

    Raises:
        AttributeError: This platform has no eventfd.
        OSError: The process has too many descriptors.
    """

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        forget_in_child(self)

    def forget_parent(self) -> None:
        """
        Have a bell of its own, under the same number, in a forked child, or it hears what the parent is rung for.

        It rings once, for whom the fork left listening: who should answer is not in this process.
        """
        try:
            own = os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError:  # too many descriptors; the others must still forget
            return
        os.dup2(own, self.fd, inheritable=False)
        os.close(own)

    def ring(self) -> None:
        """Make the descriptor readable. Thread: any."""
        os.eventfd_write(self.fd, 1)

    def hush(self) -> None:
        """Make it unreadable, however often it was rung."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:  # a child, forked by a thread that listened, has done it
            pass

    def __del__(self) -> None:
        fd = vars(self).get("fd")
        if fd is not None:  # else its constructor was interrupted
            os.close(fd)


def doorbell(loop: asyncio.AbstractEventLoop, answer: Callable[[], object]) -> Callable[[], object]:
    """
    Give a loop one callback that other threads ask for time and again.

    Cheaper than ``call_soon_threadsafe(answer)``, for which asyncio makes a handle and a context and
    reads its socket twice. Several rings may cost one answer; after the loop's end none comes.

    Returns:
        A function that has ``answer()`` called on the loop. It may raise RuntimeError when the
        loop is closed.

    Thread: the loop's own; the returned function on any.
    """
    try:
        bell = Bell()
    except (AttributeError, OSError):
        return partial(loop.call_soon_threadsafe, answer)

    def hear() -> None:
        try:
            bell.hush()
        finally:  # it is hushed, most probably, whatever is injected into this thread meanwhile
            answer()

    try:
        loop.add_reader(bell.fd, hear)
    except NotImplementedError:  # not every loop has readers
        return partial(loop.call_soon_threadsafe, answer)
    return bell.ring
