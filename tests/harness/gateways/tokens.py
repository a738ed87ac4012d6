"""OAuth2 client credentials: what the token endpoints of the gateways have in common, and one of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl
from uuid import uuid4

from harness.gateways.base import told
from harness.http_server import HttpServer, Reply, Request

SECONDS = 3600


@dataclass(frozen=True)
class Granted:
    """What a token stands for."""

    client: str
    scopes: Collection[str]


def form_of(request: Request) -> dict[str, str]:
    """The fields of a form."""
    return dict(parse_qsl(request.body.decode(), keep_blank_values=True))


def bearer(request: Request) -> str | None:
    """The token that a request brings."""
    kind, _, token = (request.headers.get("Authorization") or "").partition(" ")
    return token if kind.lower() == "bearer" and token else None


def refusal(status: int, error: str, description: str) -> Reply:
    """The error of a token endpoint (RFC 6749, 5.2)."""
    return told({"error": error, "error_description": description}, status)


def granted(token: str) -> Reply:
    """The answer that gives a token."""
    return told({"access_token": token, "token_type": "bearer", "expires_in": SECONDS})


class IdentityProvider(HttpServer):
    """A token server apart from the catalog, with the path and the answers of Keycloak, which Lakekeeper's guide sets
    up (lakekeeper/lakekeeper docs/docs/authentication.md, 90892e9cc): the scope brings the audience into the token.

    :ivar tokens: what it gave out.
    """

    def __init__(self, clients: Mapping[str, str], scopes: Collection[str]) -> None:
        super().__init__()
        self.clients, self.scopes = clients, scopes
        self.tokens: dict[str, Granted] = {}

    @property
    def token_uri(self) -> str:
        """Its token endpoint."""
        return f"{self.uri}/realms/iceberg/protocol/openid-connect/token"

    def serve(self, request: Request) -> Reply:
        """A token for a client of the realm that asks for a scope there is."""
        if request.method != "POST" or self.uri + request.path != self.token_uri:
            return told({"error": "Unable to find matching target resource method"}, 404)
        form = form_of(request)
        if form.get("grant_type") != "client_credentials":
            return refusal(400, "unsupported_grant_type", "Unsupported grant_type")
        client = form.get("client_id", "")
        if client not in self.clients or self.clients[client] != form.get("client_secret"):
            return refusal(401, "unauthorized_client", "Invalid client or Invalid client credentials")
        asked = set(form.get("scope", "").split())
        if not asked <= set(self.scopes):
            return refusal(400, "invalid_scope", f"Invalid scopes: {form['scope']}")
        token = uuid4().hex
        self.tokens[token] = Granted(client, asked)
        return granted(token)
