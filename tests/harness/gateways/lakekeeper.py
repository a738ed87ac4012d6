"""Lakekeeper, signed in to by an identity provider: as its source says at commit 90892e9cc.

Files are those of lakekeeper/lakekeeper; CRATE is ``crates/lakekeeper/src``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from harness.gateways.base import DELEGATION, Credentials, Gateway, Refused, query_of, table_of, told, with_access
from harness.gateways.tokens import IdentityProvider, bearer
from harness.http_proxy import Answer
from harness.http_server import Reply, Request

COMMIT = "90892e9cc"
SCOPE = "lakekeeper"
"""Which the audience comes with that Lakekeeper checks (docs/docs/authentication.md)."""
PAGE, MOST_NAMES, DEEPEST = 100, 1000, 5


@dataclass(frozen=True)
class Warehouse:
    """A warehouse on S3.

    :ivar id: which is the prefix of its resources.
    :ivar config: where the storage is: endpoint, region.
    :ivar credentials: what is vended; None where the store has no STS, so that requests are signed instead.
    """

    id: UUID
    config: Mapping[str, str]
    credentials: Credentials | None = None


def read_only(**where: Any) -> Answer:
    """What changes are answered with while the catalog is migrated (CRATE/api/maintenance.rs)."""
    message = (
        "Lakekeeper is in read-only maintenance mode. Mutating requests are temporarily rejected; retry after the "
        "maintenance window completes."
    )
    error = {"message": message, "type": "MaintenanceModeError", "code": 503}
    body = json.dumps({"error": error}).encode()
    return Answer(503, method="POST|DELETE", headers={"Retry-After": "60"}, body=body, **where)


class LakekeeperGateway(Gateway):
    """A running gateway.

    :ivar warehouses: by name; they all lead to the one real catalog.
    :ivar project: the one that they are in.
    """

    root = "/catalog"

    def __init__(self, target: str, provider: IdentityProvider, warehouses: Mapping[str, Warehouse]) -> None:
        super().__init__(target)
        self.provider, self.warehouses, self.project = provider, warehouses, uuid4()

    def error(self, refused: Refused) -> dict[str, Any]:
        # crates/iceberg-ext/src/catalog/rest/error.rs
        body = super().error(refused)
        body["error"]["stack"] = [f"Error ID: {uuid4()}"]
        return body

    def answer(self, request: Request, path: list[str]) -> Reply:
        if path[0] == "oauth":
            raise Refused(404)  # it gives no tokens: /v1/oauth/tokens is unsupported in CRATE/api/iceberg/mod.rs
        self._sign_in(request)
        if path == ["config"]:
            return self._config(request)
        prefix, *below = path
        if not below:
            raise Refused(404)
        found = [one for one in self.warehouses.values() if str(one.id) == prefix]
        if not _is_uuid(prefix):
            # CRATE/service/identifier/generic.rs
            raise Refused(400, "WarehouseIdIsNotUUID", f"Provided WarehouseId is not a valid UUID. Got: {prefix}")
        if not found:
            # CRATE/service/catalog_store/warehouse.rs
            raise Refused(404, "NoSuchWarehouseException", f"A warehouse with id '{prefix}' does not exist")
        return self._content(request, below, found[0])

    def _sign_in(self, request: Request) -> None:
        # CRATE/service/authn.rs
        token = bearer(request)
        if token is None:
            raise Refused(401, "MissingAuthorizationHeader", "Missing Authorization Header")
        granted = self.provider.tokens.get(token)
        if granted is None or SCOPE not in granted.scopes:
            raise Refused(401, "AuthenticationFailed", "Authentication failed")

    def _config(self, request: Request) -> Reply:
        # CRATE/server/config.rs
        asked = query_of(request).get("warehouse")
        if asked is None:
            message = "No warehouse specified. Please specify the 'warehouse' parameter in the GET /config request."
            raise Refused(400, "GetConfigNoWarehouseProvided", message)
        project, _, name = asked.partition("/")
        name = name if name and _is_uuid(project) else asked
        here = name == asked or project == str(self.project)
        if name not in self.warehouses or not here:
            raise Refused(404, "NoSuchWarehouseException", f"A warehouse '{name}' does not exist")
        defaults = {"prefix": str(self.warehouses[name].id), "rest-page-size": str(PAGE)}
        return told(
            {
                "defaults": defaults,
                "overrides": {"uri": self._base_uri(request)},
                "endpoints": self.endpoints(request),
            }
        )

    def _base_uri(self, request: Request) -> str:
        """By the Host that the client asked (determine_base_uri and base_uri_catalog in CRATE/request_metadata.rs)."""
        return f"http://{request.headers['Host']}{self.root}"

    def _content(self, request: Request, below: list[str], warehouse: Warehouse) -> Reply:
        table, query = table_of(request, below), query_of(request)
        if request.method == "POST" and below == ["namespaces"]:
            _check_namespace(json.loads(request.body)["namespace"])
        if request.method == "GET" and below[-1] in ("namespaces", "tables"):
            # CRATE/server/mod.rs: never more names than this in one answer
            size = int(query.get("pageSize", PAGE if "pageToken" in query else MOST_NAMES))
            query = {"pageToken": "", **query, "pageSize": str(min(max(size, 1), MOST_NAMES))}
        try:
            reply = self.relay(request, below, query)
        except Refused as refused:
            raise _in_its_words(refused) from refused
        if table is None:
            return reply
        return self._with_access(request, reply, warehouse)

    def _with_access(self, request: Request, reply: Reply, warehouse: Warehouse) -> Reply:
        # generate_table_config in CRATE/service/storage/s3.rs: what is asked for where it can be had, else what can;
        # nothing only for client-managed (parse_data_access in CRATE/api/iceberg/v1/tables.rs, docs/docs/storage.md)
        asked = {mode.strip() for mode in (request.headers.get(DELEGATION) or "").split(",")}
        if "client-managed" in asked and not asked & {"vended-credentials", "remote-signing"}:
            return with_access(reply, warehouse.config)
        if warehouse.credentials is not None:
            config = {**warehouse.config, **warehouse.credentials.config}
            return with_access(reply, config, warehouse.credentials)
        table = json.loads(reply.body)["metadata"]["table-uuid"]
        uri, endpoint = f"{self._base_uri(request)}/", f"v1/signer/{warehouse.id}/tabular-id/{table}/v1/aws/s3/sign"
        signing = {
            "s3.remote-signing-enabled": "true",
            "s3.signer": "S3V4RestSigner",
            "py-io-impl": "pyiceberg.io.fsspec.FsspecFileIO",
            **{"signer.uri": uri, "s3.signer.uri": uri, "signer.endpoint": endpoint, "s3.signer.endpoint": endpoint},
        }
        return with_access(reply, {**warehouse.config, **signing})


def _is_uuid(text: str) -> bool:
    try:
        return bool(UUID(text))
    except ValueError:
        return False


def _check_namespace(namespace: list[str]) -> None:
    # CRATE/server/namespace.rs
    if len(namespace) > DEEPEST:
        raise Refused(400, "NamespaceDepthExceeded", f"Namespace exceeds maximum depth of {DEEPEST}")
    if any("." in level for level in namespace):
        raise Refused(400, "NamespacePartContainsDot", "Namespace parts cannot contain '.'")
    if any("+" in level for level in namespace):
        raise Refused(400, "InvalidNamespace", "Namespace cannot contain '+' character.")


def _in_its_words(refused: Refused) -> Refused:
    # CRATE/service/catalog_store/tabular.rs
    words = {"NoSuchTableException": "Error getting tabular from catalog"}
    return Refused(refused.status, refused.kind, words.get(refused.kind or "", refused.message))
