"""Connections of Airflow's own Iceberg provider, accepted as they are."""

from __future__ import annotations

from airflow_provider_floe.catalogs.base import ConnectionFields
from airflow_provider_floe.catalogs.fields import wrong
from airflow_provider_floe.tables import Operation


class IcebergConnectionKind:
    """Connection type ``iceberg``: host is the catalog's URI, login and password its credential, and the extra goes
    to pyiceberg's ``load_catalog`` as it is.
    """

    name = "iceberg"

    def properties(self, connection: ConnectionFields) -> dict[str, str]:
        """See :meth:`CatalogKind.properties`."""
        found = {str(key): value for key, value in connection.extra.items() if key != "catalog_name"}
        if connection.host:
            found["uri"] = connection.host.rstrip("/")
        if connection.login and connection.password:
            found["credential"] = f"{connection.login}:{connection.password}"
        if "uri" not in found and "type" not in found and "py-catalog-impl" not in found:
            raise wrong(connection, "host", "is missing", "write the catalog's URI, for example https://host/catalog")
        if "type" not in found and "py-catalog-impl" not in found and found["uri"].startswith("http"):
            found["type"] = "rest"
        return found

    def cannot(self, operation: Operation) -> str | None:
        """Known only when it is tried."""
        return None
