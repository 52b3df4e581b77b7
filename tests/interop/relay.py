"""A TCP relay that can be cut: how a client dies here, whatever its library offers."""

from __future__ import annotations

import contextlib
import socket
import threading

CLOSE_DEADLINE_S = 60


class Relay:
    """Forwards each connection to its own port to `target`, until cut().

    With takes_one, the first alone: a library that connects once more by itself, and so would take its session back
    from whom a test gave it to, is refused, and cut() fails.
    """

    def __init__(self, target: tuple[str, int], takes_one: bool) -> None:
        self.target = target
        self.takes_one = takes_one
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.is_open = True
        self.has_returned = False
        self.sockets: list[socket.socket] = []
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if self.takes_one and self.sockets:
                self.has_returned = True
                client.close()
                continue
            server = socket.create_connection(self.target)
            with self.lock:
                self.sockets += [client, server]
                for pair in ((client, server), (server, client)):
                    for end in pair:
                        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    thread = threading.Thread(target=self._pump, args=pair)
                    self.threads.append(thread)
                    thread.start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def finish(self) -> None:
        """Wait until the client has closed and all that it sent is forwarded, then end."""
        with self.lock:
            to_broker = self.threads[1::2]
        for thread in to_broker:
            thread.join(CLOSE_DEADLINE_S)
        is_closed = not any(thread.is_alive() for thread in to_broker)
        self.cut()
        assert is_closed, "the client did not close its connection after DISCONNECT"

    def cut(self) -> None:
        """End every connection at once, on both sides, and take no other."""
        if not self.is_open:
            return
        self.is_open = False
        self.listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self.threads[0].join()
        self.listener.close()
        with self.lock:
            for end in self.sockets:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        for thread in self.threads[1:]:
            thread.join()
        for end in self.sockets:
            end.close()
        assert not self.has_returned, "the library connected once more by itself"
