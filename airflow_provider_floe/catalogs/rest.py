"""Catalogs that speak the Iceberg REST protocol."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from pyiceberg.catalog.rest import RestCatalog
from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from airflow_provider_floe.catalogs.base import ConnectionFields
from airflow_provider_floe.catalogs.fields import check_extra, free_properties, text, wrong
from airflow_provider_floe.tables import Operation

CONNECT_SECONDS, READ_SECONDS = 10, 120


class RestKind:
    """Kind ``rest``: ``uri`` (or the host as a full URI), ``warehouse``, and OAuth2 credentials or a token."""

    name = "rest"

    def properties(self, connection: ConnectionFields) -> dict[str, str]:
        """See :meth:`CatalogKind.properties`."""
        check_extra(connection)
        found = {"type": "rest", "uri": self._uri(connection), **free_properties(connection)}
        for field, key in (
            ("warehouse", "warehouse"),
            ("oauth2_server_uri", "oauth2-server-uri"),
            ("scope", "scope"),
            ("credential", "credential"),
            ("token", "token"),
        ):
            if value := text(connection, field):
                found[key] = value
        return {**found, **self._login(connection, found)}

    def cannot(self, operation: Operation) -> str | None:
        """A REST catalog takes part in every operation."""
        return None

    def _uri(self, connection: ConnectionFields) -> str:
        field = "uri" if text(connection, "uri") else "host"
        uri = text(connection, "uri") or (connection.host or "").strip()
        fix = "write the catalog's full URI, for example https://catalog.example.com/api/catalog"
        if not uri:
            raise wrong(connection, "uri", "is missing", fix)
        parts = urlsplit(uri)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise wrong(connection, field, f"{uri!r} is no HTTP URI", fix)
        if parts.password:
            raise wrong(connection, field, "holds a password", "put it in the connection's login and password")
        if field == "host" and connection.port and parts.port is None:
            parts = parts._replace(netloc=f"{parts.netloc}:{connection.port}")
        return parts.geturl().rstrip("/")

    def _login(self, connection: ConnectionFields, found: dict[str, str]) -> dict[str, str]:
        """Login and password are client id and secret; a password alone is a token."""
        if "credential" in found or "token" in found or not connection.password:
            return {}
        if connection.login:
            return {"credential": f"{connection.login}:{connection.password}"}
        return {"token": connection.password}


class TimedRestCatalog(RestCatalog):
    """pyiceberg's REST catalog with what it lacks: time limits, and retries of reads that met a busy server."""

    def _create_session(self) -> Session:
        session = super()._create_session()
        for prefix in ("https://", "http://"):
            session.mount(prefix, _TimedAdapter())
        return session


class _TimedAdapter(HTTPAdapter):
    def __init__(self) -> None:
        super().__init__(
            pool_maxsize=32,
            max_retries=Retry(
                total=3,
                backoff_factor=0.5,
                status_forcelist=(429, 502, 503, 504),
                allowed_methods=("GET", "HEAD"),
                raise_on_status=False,
            ),
        )

    def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
        options["timeout"] = options.get("timeout") or (CONNECT_SECONDS, READ_SECONDS)
        return super().send(request, *args, **options)
