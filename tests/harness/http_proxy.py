"""An HTTP proxy before a real server, that counts requests and answers some of them itself."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from harness.http_server import HttpServer, Reply, Request, running

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


class HttpProxy(HttpServer):
    """A running proxy.

    :ivar uri: scheme and address that stand for the server's.
    :ivar requests: method and path of every request, in order.
    :ivar answers: what is answered here, the first that fits.
    """

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = urlsplit(target).netloc
        self.requests: list[tuple[str, str]] = []
        self.answers: list[Answer] = []
        self.lock = threading.Lock()

    def serve(self, request: Request) -> Reply:
        """What is answered here, else what the server answers."""
        if answer := self.take(request.method, request.path):
            return Reply(answer.status, {"Content-Type": "application/json", **answer.headers}, answer.body)
        return self.forward(request)

    def take(self, method: str, path: str) -> Answer | None:
        """The answer for a request, which is then one less."""
        with self.lock:
            self.requests.append((method, path))
            for answer in self.answers:
                if answer.times and re.fullmatch(answer.method, method) and re.search(answer.path, path):
                    answer.times -= 1
                    return answer
        return None

    def forward(self, request: Request) -> Reply:
        """What the server answers."""
        server = http.client.HTTPConnection(self.target, timeout=120)
        try:
            # with the Host that the client knows, so that addresses in answers lead back here
            server.request(request.method, request.path, request.body, dict(request.headers.items()))
            found = server.getresponse()
            headers = {name: value for name, value in found.getheaders() if name.lower() not in _HOP_BY_HOP}
            return Reply(found.status, headers, found.read())
        finally:
            server.close()


@contextmanager
def http_proxy(target: str) -> Iterator[HttpProxy]:
    """A proxy before the server of that URI."""
    with running(HttpProxy(target)) as proxy:
        yield proxy
