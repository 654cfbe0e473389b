"""A server in front of another one, which can be cut off from it or fall silent."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Relay:
    """Passes bytes on between its clients and a server. Use `relay` to make one."""

    def __init__(self, listener: socket.socket, host: str, port: int) -> None:
        self.port: int = listener.getsockname()[1]
        self._listener = listener
        self._target = (host, port)
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._passes = threading.Event()
        self._passes.set()

    def cut(self) -> None:
        """Cut every connection there is; new ones are taken."""
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def fall_silent(self) -> None:
        """Take connections and bytes and pass nothing on: what a server does whose machine hangs."""
        self._passes.clear()

    def speak_again(self) -> None:
        """Pass on what came in meanwhile, and all that follows."""
        self._passes.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                pair = (client, socket.create_connection(self._target))
                self._ends.extend(pair)
                for source, target in (pair, pair[::-1]):
                    self._threads.append(threading.Thread(target=self._pump, args=(source, target)))
                    self._threads[-1].start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._passes.wait()
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def _run(self) -> Iterator["Relay"]:
        accepting = threading.Thread(target=self._accept)
        accepting.start()
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            accepting.join(10)
            self.cut()
            self.speak_again()
            for thread in self._threads:
                thread.join(10)
            for end in self._ends:
                end.close()


@contextmanager
def relay(host: str, port: int) -> Iterator[Relay]:
    """Stand in front of the server at ``host`` and ``port`` on a free port of 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield from Relay(listener, host, port)._run()
