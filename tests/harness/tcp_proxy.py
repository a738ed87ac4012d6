"""A TCP proxy that breaks a connection in the middle of what a test names, whatever protocol is spoken."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum


class Cut(Enum):
    """When the connection breaks."""

    BEFORE = "before the server has seen the request"
    AFTER = "after the server has answered, before the client has read it"


class TcpProxy:
    """A running proxy.

    :ivar port: where clients connect, at 127.0.0.1.
    :ivar cuts: how many connections were broken.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cuts = 0
        self._pattern = b""
        self._cut = Cut.BEFORE
        self._left = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def break_at(self, pattern: bytes, cut: Cut, times: int = 1) -> None:
        """Break the next connections on which a client sends these bytes."""
        with self._lock:
            self._pattern, self._cut, self._left = pattern, cut, times

    def close(self) -> None:
        """Accept no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(self._target) as server:
            swallow = threading.Event()
            back = threading.Thread(target=self._answers, args=(server, client, swallow), daemon=True)
            back.start()
            seen = b""
            while data := client.recv(65536):
                seen = seen[-len(self._pattern) :] + data
                if self._breaks(seen):
                    if self._cut is Cut.BEFORE:
                        break
                    swallow.set()
                server.sendall(data)
            for one in (client, server):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            back.join()

    def _breaks(self, seen: bytes) -> bool:
        with self._lock:
            if not self._left or self._pattern not in seen:
                return False
            self._left -= 1
            self.cuts += 1
            return True

    @staticmethod
    def _answers(server: socket.socket, client: socket.socket, swallow: threading.Event) -> None:
        with suppress(OSError):
            while (data := server.recv(65536)) and not swallow.is_set():
                client.sendall(data)
        for one in (client, server):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextmanager
def tcp_proxy(host: str, port: int) -> Iterator[TcpProxy]:
    """A proxy before the server at that address."""
    proxy = TcpProxy(host, port)
    try:
        yield proxy
    finally:
        proxy.close()
