"""A proxy before an S3 server that is slow, busy, cuts answers short or breaks connections, as a test says."""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding")
_SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"


class Fault(Enum):
    """What happens to a request."""

    BUSY = "answered with 503 SlowDown"
    RESET = "the connection breaks before the server sees the request"
    LOST_ANSWER = "the connection breaks after the server has done what was asked"
    CUT = "half of the body comes, then the connection is closed"
    SILENT = "nothing comes until the client gives up, or the test is over"


@dataclass
class Rule:
    """Which requests fail, and how.

    :ivar methods: pattern of the method.
    :ivar path: pattern searched in path and query.
    :ivar skip: so many requests that fit get through first.
    :ivar times: so many fail after that.
    :ivar once: each method and path fails only once, so that whoever asks again gets through.
    """

    fault: Fault
    methods: str = ".*"
    path: str = ""
    skip: int = 0
    times: int = 1_000_000
    once: bool = False


class FaultyStore:
    """A running proxy.

    :ivar uri: endpoint that stands for the server's.
    :ivar rules: the first that fits a request decides.
    :ivar requests: method and path of every request since :meth:`reset`.
    :ivar hits: requests that failed since then.
    """

    def __init__(self, endpoint: str) -> None:
        self.target = urlsplit(endpoint).netloc
        self.lock = threading.Lock()
        self.over = threading.Event()
        handler = type("Handler", (_Handler,), {"owner": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.reset()

    def reset(self, *rules: Rule) -> None:
        """From now on these rules hold, and counts begin at 0."""
        with self.lock:
            self.rules = list(rules)
            self.requests: list[tuple[str, str]] = []
            self.hits = 0
            self._failed: set[tuple[str, str]] = set()
            self._met = [0] * len(rules)

    def judge(self, method: str, path: str) -> Fault | None:
        """What is to happen to a request."""
        with self.lock:
            self.requests.append((method, path))
            for number, rule in enumerate(self.rules):
                if re.fullmatch(rule.methods, method) and re.search(rule.path, path):
                    met = self._met[number] - rule.skip
                    self._met[number] += 1
                    if not 0 <= met < rule.times or (rule.once and (method, path) in self._failed):
                        return None
                    self.hits += 1
                    self._failed.add((method, path))
                    return rule.fault
        return None


@contextmanager
def faulty_store(endpoint: str) -> Iterator[FaultyStore]:
    """A proxy before the store at that endpoint."""
    store = FaultyStore(endpoint)
    thread = threading.Thread(target=store.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        store.over.set()
        store.http.shutdown()
        store.http.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 120
    owner: FaultyStore

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle(self) -> None:
        with suppress(OSError):  # clients hang up
            super().handle()

    def _serve(self) -> None:
        body = self._body()
        fault = self.owner.judge(self.command, self.path)
        if fault is Fault.BUSY:
            self._send(503, [("Content-Type", "application/xml")], _SLOW_DOWN)
        elif fault is Fault.RESET:
            self._break()
        elif fault is Fault.SILENT:
            self.owner.over.wait(60)
            self._break()
        else:
            status, headers, answer = self._ask(body)
            if fault is Fault.LOST_ANSWER:
                self._break()
            else:
                self._send(status, headers, answer, cut=fault is Fault.CUT)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            continue
        return b"".join(parts)

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        server = http.client.HTTPConnection(self.owner.target, timeout=120)
        try:
            # with the Host that the client has signed
            server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in (*_HOP_BY_HOP, "content-length", "expect"):
                    server.putheader(name, value)
            if body or self.command in ("PUT", "POST"):
                server.putheader("Content-Length", str(len(body)))
            server.endheaders(body)
            found = server.getresponse()
            headers = [(name, value) for name, value in found.getheaders() if name.lower() not in _HOP_BY_HOP]
            return found.status, headers, found.read()
        finally:
            server.close()

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes, *, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True

    def _break(self) -> None:
        """Answer with a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
