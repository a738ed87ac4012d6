"""Holds up the commits of an engine: a REST catalog's address that lets everything through but them, until told."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_HELD_SECONDS = 300.0
_OF_ONE_HOP = ("connection", "content-length", "host", "keep-alive", "transfer-encoding")


class CommitBrake:
    """A proxy before a REST catalog. A commit that meets it while it is on waits, and its query with it.

    :param uri: the catalog's own address.
    :ivar uri: what the engine is told instead.
    :ivar held: how many commits have been held up.
    """

    def __init__(self, uri: str) -> None:
        self._target = urlsplit(uri)
        self._free = threading.Event()
        self._free.set()
        self._forward = True
        self.held = 0
        brake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.command == "POST" and "/tables/" in self.path and not brake._lets_through():
                    self.close_connection = True
                    return
                line = http.client.HTTPConnection(brake._target.hostname or "", brake._target.port, timeout=60)
                try:
                    headers = {name: value for name, value in self.headers.items() if name.lower() not in _OF_ONE_HOP}
                    line.request(self.command, self.path, body=body, headers=headers)
                    answer = line.getresponse()
                    content = answer.read()
                finally:
                    line.close()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in _OF_ONE_HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_POST = do_HEAD = do_DELETE = do_PUT = _serve

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"

    def _lets_through(self) -> bool:
        if self._free.is_set():
            return True
        self.held += 1
        return self._free.wait(_HELD_SECONDS) and self._forward

    def hold(self) -> None:
        """Hold up every commit from now on."""
        self._forward = True
        self._free.clear()

    def release(self) -> None:
        """Let them go on to the catalog."""
        self._forward = True
        self._free.set()

    def drop(self) -> None:
        """Break the connections of those that wait: they never get to the catalog."""
        self._forward = False
        self._free.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.drop()
        self._server.shutdown()
        self._server.server_close()
