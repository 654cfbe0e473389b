"""Hosts of the calling thread: what their tasks want, asked only where the host is loaded already."""

import importlib
import sys


def raise_if_host_cancelled() -> None:
    """
    Raise the cancellation of the AnyIO task that the calling thread works for, if there is one.

    AnyIO's worker threads (``anyio.to_thread``, and with it Starlette's and FastAPI's sync endpoints)
    can only be asked; nothing wakes them.
    """
    if "anyio.to_thread" not in sys.modules:
        return
    try:
        check = importlib.import_module("anyio.from_thread").check_cancelled
    except AttributeError:  # AnyIO before 4.1
        return
    try:
        check()
    except RuntimeError:  # not one of AnyIO's threads
        return
