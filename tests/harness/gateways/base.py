"""A gateway: stands before a real Iceberg REST catalog, and lets clients at it as another product would.

What a gateway does is told by the product's public OpenAPI documents and source; each rule names the file that it is
taken from. It is no copy of the product: what lies behind it (commits, conflicts, tables) is the real catalog's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from email.message import Message
from typing import Any, ClassVar
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from harness.http_proxy import HttpProxy
from harness.http_server import Reply, Request

JSON = {"Content-Type": "application/json"}
DELEGATION = "X-Iceberg-Access-Delegation"


@dataclass(frozen=True)
class Credentials:
    """Keys of a storage, as catalogs vend them.

    :ivar prefix: of the files that they open.
    """

    prefix: str
    config: Mapping[str, str]


class Refused(Exception):
    """A request that the product refuses.

    :ivar kind: the ``type`` of the error in its answer; None when the answer has no body.
    """

    def __init__(self, status: int, kind: str | None = None, message: str = "", **headers: str) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.headers = status, kind, message, headers


class Gateway(HttpProxy):
    """A running gateway.

    :ivar root: path below which the product's REST catalog is.
    :ivar seen: the requests themselves, in order.
    """

    root: ClassVar[str]

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.seen: list[Request] = []

    @property
    def catalog_uri(self) -> str:
        """What clients connect to."""
        return self.uri + self.root

    def serve(self, request: Request) -> Reply:
        """Answer as the product does."""
        if answer := self.take(request.method, request.path):
            return Reply(answer.status, {**JSON, **answer.headers}, answer.body)
        self.seen.append(request)
        try:
            return self.answer(request, self.below_root(request))
        except Refused as refused:
            body = json.dumps(self.error(refused)).encode() if refused.kind else b""
            headers = {name.replace("_", "-"): value for name, value in refused.headers.items()}
            return Reply(refused.status, {**(JSON if body else {}), **headers}, body)

    def answer(self, request: Request, path: list[str]) -> Reply:
        """The product's answer.

        :param path: parts of the path below ``<root>/v1``.
        :raises Refused: which is then told in the product's form.
        """
        raise NotImplementedError

    def error(self, refused: Refused) -> dict[str, Any]:
        """The body of an error, as the Iceberg REST specification has it."""
        return {"error": {"message": refused.message, "type": refused.kind, "code": refused.status}}

    def below_root(self, request: Request) -> list[str]:
        """The parts of the path below ``<root>/v1``, still quoted.

        :raises Refused: 404 for other paths.
        """
        path, _, below = urlsplit(request.path).path.partition(f"{self.root}/v1/")
        if path or not below:
            raise Refused(404)
        return below.split("/")

    def relay(self, request: Request, path: Sequence[str], query: Mapping[str, str] | None = None) -> Reply:
        """What the real catalog answers below ``/v1``.

        :param query: instead of the request's.
        :raises Refused: for its errors.
        """
        asked = query_of(request) if query is None else query
        text = "&".join(f"{quote(key)}={quote(value, safe='')}" for key, value in asked.items())
        target = f"/v1/{'/'.join(path)}{'?' if text else ''}{text}"
        headers = Message()
        for name, value in request.headers.items():
            if name.lower() not in ("authorization", "accept-encoding"):  # answers are read here
                headers[name] = value
        reply = self.forward(replace(request, path=target, headers=headers))
        if reply.status < 400 or request.method == "HEAD":
            return reply
        error = json.loads(reply.body)["error"]
        raise Refused(reply.status, error["type"], error["message"])

    def endpoints(self, request: Request) -> list[str]:
        """Those of the real catalog, which are what the gateway can do."""
        found = json.loads(self.relay(replace(request, method="GET", body=b""), ["config"], {}).body)["endpoints"]
        return [endpoint for endpoint in found if "{prefix}" in endpoint]


def query_of(request: Request) -> dict[str, str]:
    """The request's query."""
    return dict(parse_qsl(urlsplit(request.path).query, keep_blank_values=True))


def levels(text: str) -> list[str]:
    """The levels of a namespace in a path."""
    return unquote(text).split("\x1f")


def table_of(request: Request, path: Sequence[str]) -> tuple[list[str], str] | None:
    """Namespace and name of the table that a request loads or makes.

    :param path: parts below the prefix.
    """
    match (request.method, *path):
        case ("GET", "namespaces", namespace, "tables", name):
            return levels(namespace), unquote(name)
        case ("POST", "namespaces", namespace, "tables"):
            return levels(namespace), json.loads(request.body)["name"]
    return None


def told(body: Any, status: int = 200) -> Reply:
    """An answer in JSON."""
    return Reply(status, JSON, json.dumps(body).encode())


def with_access(reply: Reply, config: Mapping[str, str], credentials: Credentials | None = None) -> Reply:
    """The answer that holds a table, with how to get at its files."""
    body = json.loads(reply.body)
    body["config"] = {**body.get("config", {}), **config}
    if credentials is not None:
        body["storage-credentials"] = [{"prefix": credentials.prefix, "config": dict(credentials.config)}]
    headers = {name: value for name, value in reply.headers.items() if name.lower() != "etag"}
    return replace(told(body, reply.status), headers={**headers, **JSON})
