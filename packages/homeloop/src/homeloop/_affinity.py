"""The record of a loop: which one it is, told in data that may leave the process."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Affinity:
    """
    Where an object lives.

    ``loop`` is a number given once per loop and process and never given again; ``id(loop)`` is
    reused as soon as a loop is collected.
    """

    pid: int
    loop: int
    kind: str
    thread: str

    def __str__(self) -> str:
        return f"loop {self.loop} ({self.kind}, thread {self.thread!r}, pid {self.pid})"
