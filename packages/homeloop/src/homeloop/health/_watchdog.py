"""The watchdog's thread: calls something at intervals until it is stopped."""

from collections.abc import Callable
from concurrent.futures import Future

from homeloop._events import logger
from homeloop.runtime import allocate_lock, get_ident, leave_thread, real_threading, use_original_lock, wait_done

THREAD_NAME = "homeloop-health"
"""How the names of the monitor's threads begin."""


class Watchdog:
    """
    A thread of the system, also under gevent and eventlet, that calls ``look`` until it is stopped.

    Args:
        look: Returns how many seconds later it wants to be called again. An error of its is logged.
        pause: Seconds until it is called again after an error.
        name: The thread's.
    """

    def __init__(self, look: Callable[[], float], pause: float, name: str = THREAD_NAME) -> None:
        self._look = look
        self._pause = pause
        self._bell = allocate_lock()  # who gets it need not wait any longer
        self._bell.acquire()
        self._stopped = False
        self._over: Future[None] = Future()
        use_original_lock(self._over)
        self._thread = real_threading().Thread(target=self._main, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Have ``look`` called now. Thread: any."""
        try:
            self._bell.release()
        except RuntimeError:  # it rings already
            pass

    def stop(self, timeout: float) -> bool:
        """
        Have the thread end, and wait for that at most ``timeout`` seconds; tell whether it has ended.

        To be called once. Thread: any; on the watchdog's own, nothing is waited for.
        """
        self._stopped = True
        self.wake()
        if get_ident() == self._thread.ident or not wait_done(self._over, timeout):
            return False
        self._thread.join()  # it is past its last statement
        return True

    def _main(self) -> None:
        try:
            while not self._stopped:
                self._bell.acquire(True, self._next_look())
        finally:
            try:
                leave_thread()
            finally:
                self._over.set_result(None)

    def _next_look(self) -> float:
        try:
            return self._look()
        except Exception:
            logger.exception("the health monitor failed")
            return self._pause
