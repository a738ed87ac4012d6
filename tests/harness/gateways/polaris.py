"""Apache Polaris: as its source says at commit 4b42186383, and as version 1.7.0 answered.

Files are those of apache/polaris; SERVICE is ``runtime/service/src/main/java/org/apache/polaris/service``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

from harness.gateways.base import DELEGATION, Credentials, Gateway, Refused, query_of, table_of, told, with_access
from harness.gateways.tokens import Granted, bearer, form_of, granted, refusal
from harness.http_proxy import Answer
from harness.http_server import Reply, Request

COMMIT = "4b42186383"
ALL_ROLES, ROLE = "PRINCIPAL_ROLE:ALL", "PRINCIPAL_ROLE:"
FORBIDDEN = set('/\\:*?"<>|#+`')


def rate_exceeded(**where: Any) -> Answer:
    """What a client is told that asks too often; no Retry-After (SERVICE/ratelimiter/RateLimiterFilter.java)."""
    error = {"message": "Rate exceeded", "type": "TooManyRequestsException", "code": 429}
    return Answer(429, body=json.dumps({"error": error}).encode(), **where)


@dataclass(frozen=True)
class Principal:
    """Who may ask.

    :ivar roles: its principal roles.
    :ivar reads: whether they hold what reading needs.
    :ivar writes: whether they hold all of CATALOG_MANAGE_CONTENT.
    """

    name: str
    secret: str
    roles: Collection[str] = ("engineer",)
    reads: bool = True
    writes: bool = True


class PolarisGateway(Gateway):
    """A running gateway.

    :ivar principals: by their client ids.
    :ivar catalogs: names of catalogs, which all lead to the one real catalog, and the credentials that they vend; None
        where there are none to vend.
    :ivar realms: the first is the default one.
    :ivar paged: whether lists have pages; not by default, like LIST_PAGINATION_ENABLED
        (polaris-core/src/main/java/org/apache/polaris/core/config/FeatureConfiguration.java).
    """

    root = "/api/catalog"

    def __init__(
        self,
        target: str,
        principals: Mapping[str, Principal],
        catalogs: Mapping[str, Credentials | None],
        *,
        realms: Collection[str] = ("POLARIS",),
        paged: bool = False,
    ) -> None:
        super().__init__(target)
        self.principals, self.catalogs, self.realms, self.paged = principals, catalogs, realms, paged
        self.tokens: dict[str, Granted] = {}

    def answer(self, request: Request, path: list[str]) -> Reply:
        self._check_realm(request)
        if path == ["oauth", "tokens"]:
            return self._token(request)
        principal, roles = self._sign_in(request)
        if path == ["config"]:
            return self._config(request)
        prefix, *below = path
        # every resource lies below /v1/{prefix}/ (spec/iceberg-rest-catalog-open-api.yaml)
        if not below or below[0] not in ("namespaces", "tables", "views", "transactions"):
            raise Refused(404)
        # the prefix is the catalog's name (SERVICE/catalog/DefaultCatalogPrefixParser.java)
        catalog = unquote(prefix)
        if catalog not in self.catalogs:
            raise Refused(404, "NotFoundException", f"Unable to find warehouse {catalog}")
        self._authorize(principal, roles, request, below)
        return self._content(request, below, self.catalogs[catalog])

    def _check_realm(self, request: Request) -> None:
        # SERVICE/context/DefaultRealmContextResolver.java and RealmContextFilter.java
        realm = request.headers.get("Polaris-Realm")
        if realm is not None and realm not in self.realms:
            raise Refused(404, "MissingOrInvalidRealm", "Missing or invalid realm")

    def _token(self, request: Request) -> Reply:
        # SERVICE/auth/internal/service/DefaultOAuth2ApiService.java, ../broker/TokenRequestValidator.java and JWTBroker
        form = form_of(request)
        client, secret, scope = (form.get(name, "") for name in ("client_id", "client_secret", "scope"))
        if form.get("grant_type") != "client_credentials":
            return refusal(400, "unsupported_grant_type", "The grant type is invalid")
        if not client or not secret:
            return refusal(400, "invalid_client", "The Client is invalid")
        scopes = scope.split(" ")
        if not all(one.startswith(ROLE) and one != ROLE for one in scopes):
            return refusal(400, "invalid_scope", "The scope is invalid")
        principal = self.principals.get(client)
        if principal is None or principal.secret != secret:
            # SERVICE/auth/internal/service/OAuthUtils.java
            return refusal(401, "unauthorized_client", "The client is not authorized")
        token = uuid4().hex
        self.tokens[token] = Granted(client, scopes)
        return granted(token)

    def _sign_in(self, request: Request) -> tuple[Principal, list[str]]:
        """Who asks, and the roles that the token activates (SERVICE/auth/DefaultAuthenticator.java)."""
        found = self.tokens.get(bearer(request) or "")
        if found is None:
            # a challenge and no body: SERVICE/auth/internal/InternalAuthenticationMechanism.java
            raise Refused(401, WWW_Authenticate="Bearer")
        principal = self.principals[found.client]
        roles = [role for role in principal.roles if found.scopes in ([ALL_ROLES], [ROLE + role])]
        return principal, roles

    def _config(self, request: Request) -> Reply:
        # SERVICE/catalog/iceberg/IcebergCatalogAdapter.java and SERVICE/catalog/config/CatalogConfigHandler.java
        warehouse = query_of(request).get("warehouse")
        if warehouse is None:
            raise Refused(400, "BadRequestException", "Please specify a warehouse")
        if warehouse not in self.catalogs:
            raise Refused(404, "NotFoundException", f"Unable to find warehouse {warehouse}")
        overrides = {"prefix": warehouse, "namespace-separator": "%1F"}
        return told({"defaults": {}, "overrides": overrides, "endpoints": self.endpoints(request)})

    def _authorize(self, principal: Principal, roles: list[str], request: Request, below: list[str]) -> None:
        if roles and (principal.reads if request.method in ("GET", "HEAD") else principal.writes):
            return
        # polaris-core/src/main/java/org/apache/polaris/core/auth/PolarisAuthorizerImpl.java
        what = ("NAMESPACE", "NAMESPACES") if "tables" not in below else ("TABLE", "TABLES")
        listing = below[-1] in ("namespaces", "tables")
        verb = {"POST": "CREATE" if listing else "UPDATE", "DELETE": "DROP"}.get(
            request.method, "LIST" if listing else "LOAD"
        )
        raise Refused(
            403,
            "ForbiddenException",
            f"Principal '{principal.name}' with activated PrincipalRoles '[{', '.join(roles)}]' and activated grants "
            f"via '[{', '.join(roles)}]' is not authorized for op {verb}_{what[verb == 'LIST']}",
        )

    def _content(self, request: Request, below: list[str], credentials: Credentials | None) -> Reply:
        table = table_of(request, below)
        if request.method == "POST" and below[-1] in ("namespaces", "tables"):
            body = json.loads(request.body)
            for name in [body["name"]] if table else body["namespace"]:
                _check_name(name)
        query = query_of(request)
        if not self.paged:
            query = {key: value for key, value in query.items() if key not in ("pageToken", "pageSize")}
        reply = self.relay(request, below, query)
        asked = [mode.strip() for mode in (request.headers.get(DELEGATION) or "").split(",")]
        if table is None or "vended-credentials" not in asked:
            return reply
        # SERVICE/catalog/iceberg/IcebergCatalogHandler.java, buildLoadTableResponseWithDelegationCredentials
        if credentials is None:
            name = ".".join((*table[0], table[1]))
            message = f"Credential vending was requested for table {name}, but no credentials are available"
            raise Refused(400, "IllegalArgumentException", message)
        return with_access(reply, credentials.config, credentials)


def _check_name(name: str) -> None:
    # SERVICE/catalog/validation/EntityNameValidator.java
    if found := FORBIDDEN & set(name):
        raise Refused(400, "IllegalArgumentException", f"Entity name must not contain '{min(found)}': {name}")
    if name != name.strip():
        raise Refused(
            400, "IllegalArgumentException", f"Entity name must not have leading or trailing whitespace: {name}"
        )
