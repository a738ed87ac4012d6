"""Catalogs that speak the Iceberg REST protocol."""

from __future__ import annotations

import re
from typing import ClassVar
from urllib.parse import urlsplit

from pyiceberg.catalog.rest import RestCatalog, TableResponse
from pyiceberg.exceptions import RESTError
from pyiceberg.table import Table
from requests import Session

from airflow_provider_floe.catalogs.base import ConnectionFields
from airflow_provider_floe.catalogs.fields import EXTRA_FIELDS, check_extra, free_properties, text, wrong
from airflow_provider_floe.catalogs.rest_transport import TimedAdapter
from airflow_provider_floe.tables import Operation

DELEGATION_HEADER = "header.X-Iceberg-Access-Delegation"
_DELEGATIONS = ("vended-credentials", "none")
_SIGNING = re.compile(r"(s3\.)?(remote-signing-enabled|signer(\.\w+)?)|py-io-impl")
"""What catalogs tell clients whose requests to the storage they sign."""
_STORAGE_KEYS = ("s3.access-key-id", "adls.account-key", "adls.sas-token", "adls.client-id", "gcs.oauth2.token")


class RestKind:
    """Kind ``rest``: ``uri`` (or the host as a full URI), ``warehouse``, and OAuth2 credentials or a token."""

    name = "rest"
    example = "https://catalog.example.com/api/catalog"
    own_fields: ClassVar[frozenset[str]] = frozenset()
    warehouse_is: ClassVar[str | None] = None
    """What the warehouse names, for servers that need one."""
    scope: ClassVar[str | None] = None
    """OAuth2 scope where the connection names none."""
    no_delegation: ClassVar[str] = ""
    """What servers are told that are not asked to let their clients into the storage."""

    def properties(self, connection: ConnectionFields) -> dict[str, str]:
        """See :meth:`CatalogKind.properties`."""
        check_extra(connection, EXTRA_FIELDS | self.own_fields)
        found = {"type": "rest", "uri": self.uri(connection), **free_properties(connection)}
        for field, key in (
            ("warehouse", "warehouse"),
            ("oauth2_server_uri", "oauth2-server-uri"),
            ("scope", "scope"),
            ("credential", "credential"),
            ("token", "token"),
        ):
            if value := text(connection, field):
                found[key] = value
        if self.warehouse_is and "warehouse" not in found:
            raise wrong(connection, "warehouse", "is missing", f"write {self.warehouse_is}")
        found = {**found, **self._login(connection, found), **self._delegation(connection, found)}
        return (
            {**found, "scope": self.scope} if self.scope and "credential" in found and "scope" not in found else found
        )

    def cannot(self, operation: Operation) -> str | None:
        """A REST catalog takes part in every operation."""
        return None

    def uri(self, connection: ConnectionFields) -> str:
        """The catalog's URI, without a slash at its end.

        :raises ConfigurationError: when it is missing or is no HTTP URI.
        """
        field = "uri" if text(connection, "uri") else "host"
        uri = text(connection, "uri") or (connection.host or "").strip()
        fix = f"write the catalog's full URI, for example {self.example}"
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

    def _delegation(self, connection: ConnectionFields, found: dict[str, str]) -> dict[str, str]:
        """How the catalog lets its clients into the storage. It is not asked to when the connection brings keys of its
        own, since servers that have nothing to give refuse then (Polaris and Gravitino do).
        """
        field = "access_delegation"
        wanted = text(connection, field)
        if wanted is None and DELEGATION_HEADER not in found and any(key in found for key in _STORAGE_KEYS):
            wanted = "none"
        if wanted is None:
            return {}
        if wanted == "remote-signing":
            problem = "remote-signing is not supported, since catalogs do not sign the listing of files"
            raise wrong(connection, field, problem, "use vended-credentials, or none and keys in 'properties'")
        if wanted not in _DELEGATIONS:
            raise wrong(connection, field, f"{wanted!r} is not known", f"use {' or '.join(_DELEGATIONS)}")
        return {DELEGATION_HEADER: self.no_delegation if wanted == "none" else wanted}

    def _login(self, connection: ConnectionFields, found: dict[str, str]) -> dict[str, str]:
        """Login and password are client id and secret; a password alone is a token."""
        if "credential" in found or "token" in found or not connection.password:
            return {}
        if connection.login:
            return {"credential": f"{connection.login}:{connection.password}"}
        return {"token": connection.password}


class TimedRestCatalog(RestCatalog):
    """pyiceberg's REST catalog with what it lacks: time limits, and retries of reads that met a busy server."""

    def _config_headers(self, session: Session) -> None:
        """The first thing that pyiceberg does with a new session, before it asks for a token."""
        for prefix in ("https://", "http://"):
            session.mount(prefix, TimedAdapter())
        super()._config_headers(session)

    def _create_session(self) -> Session:
        session = super()._create_session()
        if not any(key in self.properties for key in ("auth", "credential", "token", "rest.sigv4-enabled")):
            session.auth = None  # pyiceberg would send "Bearer None", which servers without sign-in refuse
        return session

    def _refresh_token(self) -> None:
        if self._session.auth is not None:
            super()._refresh_token()

    def _response_to_table(self, identifier_tuple: tuple[str, ...], table_response: TableResponse) -> Table:
        """A catalog that signs requests is of no use, but does not matter to those who have keys of their own."""
        config = table_response.config
        if config.get("s3.remote-signing-enabled") == "true" and "s3.access-key-id" not in config:
            if not any(key in self.properties for key in _STORAGE_KEYS):
                raise RemoteSigningOnly("the catalog offers remote signing of requests to the storage, no credentials")
            kept = {key: value for key, value in config.items() if not _SIGNING.fullmatch(key)}
            table_response = table_response.model_copy(update={"config": kept})
        return super()._response_to_table(identifier_tuple, table_response)


class RemoteSigningOnly(RESTError):
    """The catalog signs its clients' requests to the storage, one by one, and gives them nothing else."""
