"""Gravitino's server beside its Iceberg REST service: the metalake whose catalogs that service serves.

Only what its Python client reads: metalake, catalogs, and the names of schemas and tables. Answers are those of
apache/gravitino docs/open-api (metalakes.yaml, catalogs.yaml, schemas.yaml, tables.yaml) at commit f461aa31a.
"""

from __future__ import annotations

import json
from email.message import Message
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from harness.gateways.base import told
from harness.gateways.gravitino import GravitinoGateway
from harness.http_server import HttpServer, Reply, Request

VERSION = "1.3.1"
_AUDIT = {"creator": "anonymous", "createTime": "2026-01-01T00:00:00Z"}
_NO_SUCH, _PROVIDER = 1003, "lakehouse-iceberg"


class MetalakeServer(HttpServer):
    """A running server of one metalake.

    :ivar service: the Iceberg REST service.
    """

    def __init__(self, service: GravitinoGateway, metalake: str) -> None:
        super().__init__()
        self.service, self.metalake = service, metalake

    def serve(self, request: Request) -> Reply:
        """What the names of the path lead to."""
        match [unquote(part) for part in urlsplit(request.path).path.strip("/").split("/")]:
            case ["api", "version"]:
                return _good(version={"version": VERSION, "compileDate": "", "gitCommit": ""})
            case ["api", "metalakes", name, *below] if name == self.metalake:
                return self._below(below)
            case ["api", "metalakes", name, *_]:
                return _missing("Metalake", name)
        return Reply(404)

    def _below(self, path: list[str]) -> Reply:
        match path:
            case []:
                return _good(metalake=self._described(self.metalake))
            case ["catalogs"]:
                return self._listed([], [name for name in self.service.catalogs if name])
            case ["catalogs", catalog, *_] if catalog not in self.service.catalogs:
                return _missing("Catalog", catalog)
            case ["catalogs", catalog]:
                kind = {"type": "relational", "provider": _PROVIDER}
                return _good(catalog={**self._described(catalog), **kind})
            case ["catalogs", catalog, "schemas"]:
                names = self._ask("namespaces")["namespaces"]
                return self._listed([catalog], [levels[0] for levels in names])
            case ["catalogs", catalog, "schemas", schema, "tables"]:
                names = self._ask("namespaces", quote(schema, safe=""), "tables")["identifiers"]
                return self._listed([catalog, schema], [one["name"] for one in names])
        return Reply(404)

    def _ask(self, *path: str) -> Any:
        return json.loads(self.service.relay(Request("GET", "", Message(), b""), path, {}).body)

    def _described(self, name: str) -> dict[str, Any]:
        return {"name": name, "comment": "", "properties": {}, "audit": _AUDIT}

    def _listed(self, below: list[str], names: list[str]) -> Reply:
        return _good(identifiers=[{"namespace": [self.metalake, *below], "name": name} for name in names])


def _good(**found: Any) -> Reply:
    return told({"code": 0, **found})


def _missing(what: str, name: str) -> Reply:
    kind = f"NoSuch{what}Exception"
    message = f"Failed to operate {what.lower()}(s) [{name}] operation [LOAD], reason [{kind}]"
    return told({"code": _NO_SUCH, "type": kind, "message": message, "stack": []}, 404)
