"""Servers that speak the Iceberg REST protocol, each with what it needs filled in."""

from __future__ import annotations

import re
from urllib.parse import quote

from airflow_provider_floe.catalogs.base import ConnectionFields
from airflow_provider_floe.catalogs.fields import text
from airflow_provider_floe.catalogs.rest import RestKind
from airflow_provider_floe.tables import Operation

NESSIE_KEEPS_FILES = (
    "Nessie keeps every commit of every branch and tag, shows only the newest snapshot of a table, and so sets "
    "gc.enabled=false: which files nothing needs any more, only its own garbage collector nessie-gc knows"
)
_DELETING = (Operation.EXPIRE_SNAPSHOTS, Operation.REMOVE_ORPHAN_FILES)
_NESSIE_NATIVE = re.compile(r"/api/v[12]$")


class PolarisKind(RestKind):
    """Kind ``polaris``: the warehouse is the Polaris catalog's name; all of the principal's roles are asked for."""

    name = "polaris"
    example = "https://polaris.example.com/api/catalog"
    warehouse_is = "the name of the Polaris catalog"
    scope = "PRINCIPAL_ROLE:ALL"

    def properties(self, connection: ConnectionFields) -> dict[str, str]:
        """See :meth:`CatalogKind.properties`. Polaris has a token endpoint, which pyiceberg will not guess for ever."""
        found = super().properties(connection)
        if "credential" in found:
            found.setdefault("oauth2-server-uri", f"{found['uri']}/v1/oauth/tokens")
        return found


class LakekeeperKind(RestKind):
    """Kind ``lakekeeper``: a warehouse is needed; with OAuth2 its identity provider is the ``oauth2_server_uri``.

    Clients that ask for nothing are given what the warehouse has, remote signing too, in place of their own keys.
    """

    name = "lakekeeper"
    example = "https://lakekeeper.example.com/catalog"
    warehouse_is = "the name of the Lakekeeper warehouse"
    no_delegation = "client-managed"


class GravitinoKind(RestKind):
    """Kind ``gravitino``: Gravitino's Iceberg REST service; the warehouse names one of its catalogs."""

    name = "gravitino"
    example = "https://gravitino.example.com/iceberg"


class NessieKind(RestKind):
    """Kind ``nessie``: Nessie's Iceberg REST endpoint at the branch or tag ``ref`` (``main``).

    The URI of the native API (``.../api/v1``, ``.../api/v2``) is accepted and changed to that endpoint.
    """

    name = "nessie"
    example = "https://nessie.example.com/iceberg"
    own_fields = frozenset(("ref",))

    def cannot(self, operation: Operation) -> str | None:
        """Nothing that deletes files: Nessie shows one snapshot, and the files of others would be taken for orphans."""
        return NESSIE_KEEPS_FILES if operation in _DELETING else None

    def uri(self, connection: ConnectionFields) -> str:
        """The endpoint with the reference as its last part; one that the URI already has stays."""
        uri = _NESSIE_NATIVE.sub("/iceberg", super().uri(connection))
        return f"{uri}/{quote(text(connection, 'ref') or 'main', safe='')}" if uri.endswith("/iceberg") else uri
