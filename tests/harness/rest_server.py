"""An Iceberg REST catalog in this process: the standard library's HTTP server over a pyiceberg catalog on SQLite."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pyiceberg import exceptions
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import CommitTableRequest, Table
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, SortOrder

from airflow_provider_floe.engines.local.pyiceberg_commit import metadata_json, write_metadata

_SEPARATOR = "\x1f"
_ERRORS: dict[type[Exception], tuple[int, str]] = {
    exceptions.NoSuchTableError: (404, "NoSuchTableException"),
    exceptions.NoSuchNamespaceError: (404, "NoSuchNamespaceException"),
    exceptions.TableAlreadyExistsError: (409, "AlreadyExistsException"),
    exceptions.NamespaceAlreadyExistsError: (409, "AlreadyExistsException"),
    exceptions.NamespaceNotEmptyError: (409, "NamespaceNotEmptyException"),
    exceptions.CommitFailedException: (409, "CommitFailedException"),
}


class RestServer:
    """A running server.

    :ivar uri: what a client connects to.
    :ivar catalog: the catalog beneath, for tests that look behind the server's back.
    :ivar requests: method and path of every request, in order.
    :ivar authorizations: what their Authorization headers held.
    :ivar failures: status codes that the next requests are answered with, first come first served; 0 lets one pass.
    :ivar failure_message: what those answers say.
    """

    def __init__(self, catalog: SqlCatalog, page_size: int, token: str | None) -> None:
        self.catalog = catalog
        self.page_size = page_size
        self.token = token
        self.requests: list[tuple[str, str]] = []
        self.authorizations: set[str | None] = set()
        self.failures: list[int] = []
        self.failure_message = "as the test asked for"
        self.commits = threading.Lock()
        handler = type("Handler", (_Handler,), {"owner": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self.http.server_address[1]}"


@contextmanager
def rest_server(
    directory: Path, *, name: str = "lake", page_size: int = 2, token: str | None = None
) -> Iterator[RestServer]:
    """Serve a catalog whose database and warehouse are under ``directory``.

    :param page_size: most names in one answer, so that clients must follow page tokens.
    :param token: when given, requests need this bearer token; OAuth2 gives it to the client ``client:secret``.
    """
    warehouse = directory / "warehouse"
    warehouse.mkdir(parents=True, exist_ok=True)
    catalog = SqlCatalog(name, uri=f"sqlite:///{directory}/rest.db", warehouse=f"file://{warehouse}")
    catalog._write_metadata = write_metadata  # type: ignore[method-assign]
    server = RestServer(catalog, page_size, token)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()
        catalog.close()


class _Refused(Exception):
    def __init__(self, code: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.kind = kind


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: RestServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        self.owner.requests.append((self.command, parts.path))
        self.owner.authorizations.add(self.headers.get("Authorization"))
        try:
            if self.owner.failures and (code := self.owner.failures.pop(0)):
                raise _Refused(code, "ServerError", self.owner.failure_message)
            path = [unquote(part) for part in parts.path.strip("/").split("/")]
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            code, body = self._answer(path, query, raw)
        except Exception as error:
            code, body = self._refusal(error)
        self._send(code, body)

    do_GET = do_HEAD = do_POST = do_DELETE = _serve

    def _send(self, code: int, body: Any) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refusal(self, error: Exception) -> tuple[int, Any]:
        if isinstance(error, _Refused):
            code, kind = error.code, error.kind
        else:
            found = (known for type_, known in _ERRORS.items() if isinstance(error, type_))
            code, kind = next(found, (500, type(error).__name__))
        return code, {"error": {"message": str(error), "type": kind, "code": code}}

    def _answer(self, path: list[str], query: dict[str, str], raw: bytes) -> tuple[int, Any]:
        if path == ["v1", "oauth", "tokens"]:
            return self._token(raw)
        if self.owner.token and self.headers.get("Authorization") != f"Bearer {self.owner.token}":
            raise _Refused(401, "NotAuthorizedException", "who are you?")
        body = json.loads(raw) if raw else {}
        match path:
            case ["v1", "config"]:
                return 200, {"defaults": {}, "overrides": {}}
            case ["v1", "namespaces"]:
                return self._namespaces(query, body)
            case ["v1", "namespaces", namespace]:
                return self._namespace(_levels(namespace))
            case ["v1", "namespaces", namespace, "tables"]:
                return self._tables(_levels(namespace), query, body)
            case ["v1", "namespaces", namespace, "tables", name]:
                return self._table((*_levels(namespace), name), body)
        raise _Refused(404, "NotFoundException", self.path)

    def _token(self, raw: bytes) -> tuple[int, Any]:
        form = {key: values[0] for key, values in parse_qs(raw.decode()).items()}
        if self.owner.token and (form.get("client_id"), form.get("client_secret")) != ("client", "secret"):
            return 401, {"error": "invalid_client", "error_description": "unknown client"}
        return 200, {"access_token": self.owner.token or "any", "token_type": "bearer", "expires_in": 3600}

    def _page(self, query: dict[str, str], items: list[Any]) -> tuple[list[Any], dict[str, str]]:
        begin = int(query.get("pageToken") or 0)
        end = begin + self.owner.page_size
        return items[begin:end], {"next-page-token": str(end)} if end < len(items) else {}

    def _namespaces(self, query: dict[str, str], body: Any) -> tuple[int, Any]:
        catalog = self.owner.catalog
        if self.command == "POST":
            catalog.create_namespace(tuple(body["namespace"]), body.get("properties") or {})
            return 200, {"namespace": body["namespace"], "properties": {}}
        parent = _levels(query["parent"]) if "parent" in query else ()
        names, more = self._page(query, sorted(list(name) for name in catalog.list_namespaces(parent)))
        return 200, {"namespaces": names, **more}

    def _namespace(self, namespace: tuple[str, ...]) -> tuple[int, Any]:
        catalog = self.owner.catalog
        if self.command == "DELETE":
            catalog.drop_namespace(namespace)
            return 204, None
        properties = catalog.load_namespace_properties(namespace)
        return (204, None) if self.command == "HEAD" else (200, {"namespace": namespace, "properties": properties})

    def _tables(self, namespace: tuple[str, ...], query: dict[str, str], body: Any) -> tuple[int, Any]:
        catalog = self.owner.catalog
        if self.command == "GET":
            names, more = self._page(query, sorted(identifier[-1] for identifier in catalog.list_tables(namespace)))
            return 200, {"identifiers": [{"namespace": namespace, "name": name} for name in names], **more}
        spec, order = body.get("partition-spec"), body.get("write-order")
        table = catalog.create_table(
            (*namespace, body["name"]),
            Schema.model_validate(body["schema"]),
            location=body.get("location"),
            partition_spec=PartitionSpec.model_validate(spec) if spec else UNPARTITIONED_PARTITION_SPEC,
            sort_order=SortOrder.model_validate(order) if order else UNSORTED_SORT_ORDER,
            properties=body.get("properties") or {},
        )
        return 200, _loaded(table)

    def _table(self, identifier: tuple[str, ...], body: Any) -> tuple[int, Any]:
        catalog = self.owner.catalog
        if self.command == "DELETE":
            catalog.drop_table(identifier)
            return 204, None
        table = catalog.load_table(identifier)
        if self.command in ("GET", "HEAD"):
            return (200, _loaded(table)) if self.command == "GET" else (204, None)
        body.setdefault("identifier", {"namespace": identifier[:-1], "name": identifier[-1]})
        request = CommitTableRequest.model_validate(body)
        with self.owner.commits:
            response = catalog.commit_table(catalog.load_table(identifier), request.requirements, request.updates)
        metadata = json.loads(metadata_json(response.metadata))
        return 200, {"metadata-location": response.metadata_location, "metadata": metadata}


def _levels(text: str) -> tuple[str, ...]:
    return tuple(text.split(_SEPARATOR))


def _loaded(table: Table) -> dict[str, Any]:
    metadata = json.loads(metadata_json(table.metadata))
    return {"metadata-location": table.metadata_location, "metadata": metadata, "config": {}}
