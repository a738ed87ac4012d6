"""Apache Gravitino's Iceberg REST service: as its source says at commit f461aa31a, and as 1.3.0-rc6 answered.

Files are those of apache/gravitino; REST is ``iceberg/iceberg-rest-server/src/main/java/org/apache/gravitino/iceberg``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from harness.gateways.base import DELEGATION, Credentials, Gateway, Refused, query_of, table_of, told, with_access
from harness.http_server import Reply, Request

COMMIT = "f461aa31a"
DEFAULT = ""
"""Name of the catalog that is served without a warehouse."""

_LISTS = {"namespaces": "namespaces", "tables": "identifiers"}


class GravitinoGateway(Gateway):
    """A running gateway, without sign-in (authenticator ``simple``).

    :ivar catalogs: names of catalogs, which all lead to the one real catalog, and the credentials that they vend; None
        where no provider of credentials is set up.
    """

    root = "/iceberg"

    def __init__(self, target: str, catalogs: Mapping[str, Credentials | None]) -> None:
        super().__init__(target)
        self.catalogs = catalogs

    def error(self, refused: Refused) -> dict[str, Any]:
        # with a stack trace: REST/service/IcebergRESTUtils.java; but not where nobody is let in, see _sign_in
        body = super().error(refused)
        if refused.status != 401:
            body["error"]["stack"] = [f"org.apache.iceberg.exceptions.{refused.kind}: {refused.message}"]
        return body

    def answer(self, request: Request, path: list[str]) -> Reply:
        self._sign_in(request)
        if path == ["config"]:
            return self._config(request)
        # {prefix:([^/]*/)?}: the prefix may be left out (REST/service/rest/IcebergTableOperations.java)
        prefix, below = (DEFAULT, path) if path[0] in _LISTS else (unquote(path[0]), path[1:])
        if not below:
            raise Refused(404)
        return self._content(request, below, self._catalog(prefix))

    def _sign_in(self, request: Request) -> None:
        # server-common/src/main/java/org/apache/gravitino/server/authentication/SimpleAuthenticator.java: nothing, or
        # Basic with any name; AuthenticationFilter.java there and REST/service/IcebergAuthenticationFilter.java
        given = request.headers.get("Authorization")
        if given is not None and not given.startswith("Basic "):
            raise Refused(401, "NotAuthorizedException", "The provided credentials did not support")

    def _catalog(self, name: str) -> Credentials | None:
        if name not in self.catalogs:
            # REST/service/IcebergCatalogWrapperManager.java
            message = f"Couldn't find Iceberg configuration for catalog {name}"
            raise Refused(404, "NoSuchCatalogException", message)
        return self.catalogs[name]

    def _config(self, request: Request) -> Reply:
        # REST/service/rest/IcebergConfigOperations.java: a prefix for those who name a warehouse, as a default
        warehouse = query_of(request).get("warehouse", "").strip()
        self._catalog(warehouse)
        table = "/v1/{prefix}/namespaces/{namespace}/tables/{table}"
        endpoints = [*self.endpoints(request), f"GET {table}/credentials", f"POST {table}/plan"]
        return told({"defaults": {"prefix": warehouse} if warehouse else {}, "overrides": {}, "endpoints": endpoints})

    def _content(self, request: Request, below: list[str], credentials: Credentials | None) -> Reply:
        table = table_of(request, below)
        vended = table is not None and _vended(request.headers.get(DELEGATION) or "")
        if request.method == "GET" and below[-1] in _LISTS:
            return self._page(request, below)
        reply = self.relay(request, below)
        if not vended:
            return reply
        if credentials is None:
            # core/src/main/java/org/apache/gravitino/credential/CatalogCredentialManager.java
            path = json.loads(reply.body)["metadata"]["location"]
            message = f"No credential provider found for path {path} with scheme {path.partition(':')[0]}"
            raise Refused(400, "IllegalArgumentException", message)
        return with_access(reply, credentials.config, credentials)

    def _page(self, request: Request, below: list[str]) -> Reply:
        """Names in order after the last one of the page before (REST/service/rest/IcebergPaginationHelper.java)."""
        query = query_of(request)
        token, size = query.pop("pageToken", ""), query.pop("pageSize", None)
        body = json.loads(self.relay(request, below, query).body)
        body.pop("next-page-token", None)
        if not token and size is None:
            return told(body)
        if size is not None and int(size) <= 0:
            raise Refused(400, "IllegalArgumentException", f"pageSize must be positive, got: {size}")
        key = _LISTS[below[-1]]
        later = sorted((one for one in body[key] if _name(one) > token), key=_name)
        body[key] = later[: int(size)] if size else later
        if len(body[key]) < len(later):
            body["next-page-token"] = _name(body[key][-1])
        return told(body)


def _name(one: Any) -> str:
    return ".".join(one if isinstance(one, list) else (*one["namespace"], one["name"]))


def _vended(asked: str) -> bool:
    # isCredentialVending in REST/service/rest/IcebergTableOperations.java
    match asked.strip().lower():
        case "":
            return False
        case "vended-credentials":
            return True
        case "remote-signing":
            message = "Gravitino IcebergRESTServer doesn't support remote signing"
            raise Refused(406, "UnsupportedOperationException", message)
    message = (
        f"{DELEGATION}: {asked} is illegal, Iceberg REST spec supports: [vended-credentials,remote-signing], Gravitino "
        "Iceberg REST server supports: vended-credentials"
    )
    raise Refused(400, "IllegalArgumentException", message)
