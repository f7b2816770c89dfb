"""A way from this machine's loopback to a port in the lab's network, which is a namespace of its own."""

from __future__ import annotations

import contextlib
import socket
import threading

BUFFER = 65536
USUAL_PORT = 5555


class Door:
    """Listens where it was made, connects where ``open`` was called: a socket stays in its namespace."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind(("127.0.0.1", USUAL_PORT))
        except OSError:
            self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(32)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def open(self, port: int) -> None:
        """Lead everybody who comes to this port of the calling thread's network."""
        threading.Thread(target=self._lead, args=(port,), name="door", daemon=True).start()

    def close(self) -> None:
        """No more."""
        self._listener.close()

    def _lead(self, port: int) -> None:
        with contextlib.suppress(OSError):
            while True:
                guest, _ = self._listener.accept()
                try:
                    there = socket.create_connection(("127.0.0.1", port), timeout=10)
                except OSError:
                    guest.close()
                    continue
                there.settimeout(None)
                for ends in ((guest, there), (there, guest)):
                    threading.Thread(target=_pump, args=ends, daemon=True).start()


def _pump(source: socket.socket, destination: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(BUFFER):
            destination.sendall(data)
    for end in (source, destination):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
