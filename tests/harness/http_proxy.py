"""An HTTP proxy before a real server, that counts requests and answers some of them itself."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length")


@dataclass
class Answer:
    """What the proxy answers instead of the server.

    :ivar path: pattern of the request's path that it is for.
    :ivar times: how often.
    """

    status: int
    method: str = "GET|HEAD|POST|DELETE"
    path: str = ".*"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b'{"error": {"message": "too busy", "type": "SlowDownException", "code": 503}}'
    times: int = 1


class HttpProxy:
    """A running proxy.

    :ivar uri: scheme and address that stand for the server's.
    :ivar requests: method and path of every request, in order.
    :ivar answers: what is answered here, the first that fits.
    """

    def __init__(self, target: str) -> None:
        self.target = urlsplit(target).netloc
        self.requests: list[tuple[str, str]] = []
        self.answers: list[Answer] = []
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"owner": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self.http.server_address[1]}"

    def take(self, method: str, path: str) -> Answer | None:
        """The answer for a request, which is then one less."""
        with self.lock:
            self.requests.append((method, path))
            for answer in self.answers:
                if answer.times and re.fullmatch(answer.method, method) and re.search(answer.path, path):
                    answer.times -= 1
                    return answer
        return None


@contextmanager
def http_proxy(target: str) -> Iterator[HttpProxy]:
    """A proxy before the server of that URI."""
    proxy = HttpProxy(target)
    thread = threading.Thread(target=proxy.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.http.shutdown()
        proxy.http.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: HttpProxy

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if answer := self.owner.take(self.command, self.path):
            self._send(answer.status, {"Content-Type": "application/json", **answer.headers}, answer.body)
            return
        server = http.client.HTTPConnection(self.owner.target, timeout=120)
        try:
            # with the Host that the client knows, so that addresses in answers lead back here
            server.request(self.command, self.path, body, dict(self.headers.items()))
            found = server.getresponse()
            headers = {name: value for name, value in found.getheaders() if name.lower() not in _HOP_BY_HOP}
            self._send(found.status, headers, found.read())
        finally:
            server.close()

    do_GET = do_HEAD = do_POST = do_DELETE = _serve

    def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
