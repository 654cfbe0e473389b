"""The wire between a process and its workers: frames of a kind, a number and a payload, on a local stream."""

import struct
from collections.abc import Iterator
from enum import IntEnum

HEADER = struct.Struct("!BIQ")
"""Kind, number of the run (or of a process), length of the payload (or a signal, where none follows)."""


class Kind(IntEnum):
    """What a frame says."""

    # to the template
    SETUP = 1  # payload: how to prepare
    FORK = 2  # number: the request; two descriptors come along: the worker's wire, and its stderr while it starts
    KILL = 3  # number: the process; length: the signal

    # from the template
    PREPARED = 10  # payload: names of threads that are running, which a fork would lose
    FORKED = 11  # number: the process, 0 if there is none; payload: the request, and why there is none
    EXITED = 12  # number: the process; payload: its exit code

    # to a worker
    RUN = 20
    CANCEL = 21
    ACK = 22  # payload: which report the callback has run for, and what it raised
    LEAVE = 23  # close a room
    STOP = 24

    # from a worker
    READY = 30  # payload: its loop, its thread
    PROGRESS = 31
    DONE = 32  # payload: the outcome
    LEFT = 33  # a room is closed; payload: what was left in it
    CANCELLING = 34  # payload: where the run waited when its cancellation came
    EVENT = 35


def frame(kind: Kind, number: int, payload: bytes = b"") -> bytes:
    """Make a frame."""
    return HEADER.pack(kind, number, len(payload)) + payload


class Frames:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Kind, int, bytes]]:
        """Take in more bytes, and give the frames that are whole."""
        self._data += data
        start = 0
        try:
            while len(self._data) - start >= HEADER.size:
                kind, number, length = HEADER.unpack_from(self._data, start)
                end = start + HEADER.size + length
                if len(self._data) < end:
                    return
                payload = bytes(memoryview(self._data)[start + HEADER.size : end])
                start = end
                yield Kind(kind), number, payload
        finally:
            del self._data[:start]
