"""Catalogs in a Hive metastore."""

from __future__ import annotations

from importlib.util import find_spec
from urllib.parse import urlsplit

from airflow_provider_floe.catalogs.base import ConnectionFields
from airflow_provider_floe.catalogs.fields import check_extra, free_properties, text, wrong
from airflow_provider_floe.errors import MissingExtra
from airflow_provider_floe.tables import Operation


class HiveKind:
    """Kind ``hive``: ``uri`` of the metastore (several, separated by commas), or host and port, and ``warehouse``.

    :raises MissingExtra: when the metastore's Thrift client is not installed.
    """

    name = "hive"

    def __init__(self) -> None:
        if find_spec("thrift") is None:
            raise MissingExtra("catalog kind hive", "hive")

    def properties(self, connection: ConnectionFields) -> dict[str, str]:
        """See :meth:`CatalogKind.properties`."""
        check_extra(connection)
        host = (connection.host or "").strip()
        own = text(connection, "uri")
        uri = own or host
        if uri and "://" not in uri:
            uri = f"thrift://{uri}:{connection.port or 9083}"
        fix = "write for example thrift://metastore.example.com:9083"
        if not uri:
            raise wrong(connection, "uri", "is missing", fix)
        for part in uri.split(","):
            if urlsplit(part).scheme != "thrift" or not urlsplit(part).hostname:
                raise wrong(connection, "uri" if own else "host", f"{part!r} is no Thrift URI", fix)
        found = {"type": "hive", "uri": uri, **free_properties(connection)}
        if warehouse := text(connection, "warehouse"):
            found["warehouse"] = warehouse
        return found

    def cannot(self, operation: Operation) -> str | None:
        """A Hive metastore takes part in every operation."""
        return None
