"""Catalogs made from Airflow's connections. Never called while parsing."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

from airflow_provider_floe.errors import ConfigurationError, FloeError
from airflow_provider_floe.hooks.floe import connection_fields

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from airflow_provider_floe.catalogs.base import CatalogClient, ConnectionFields
    from airflow_provider_floe.tables import Operation, TableRef

log = logging.getLogger(__name__)


def open_catalogs(conn_ids: Sequence[str]) -> dict[str, CatalogClient]:
    """Catalogs by the name that policies use. One that cannot be opened fails only when it is used.

    :raises ConfigurationError: when there is none, or two have the same name.
    """
    if not conn_ids:
        raise ConfigurationError(
            "no catalogs are configured: list connection ids in [floe] catalogs (AIRFLOW__FLOE__CATALOGS=lake)"
        )
    catalogs: dict[str, CatalogClient] = {}
    ids: dict[str, str] = {}
    for conn_id in conn_ids:
        client = _open_catalog(conn_id)
        if client.name in catalogs:
            raise ConfigurationError(
                f"connections {ids[client.name]!r} and {conn_id!r} both name their catalog {client.name!r}: give one "
                "of them another catalog_name, or list it once in [floe] catalogs"
            )
        catalogs[client.name] = client
        ids[client.name] = conn_id
    return catalogs


def _open_catalog(conn_id: str) -> CatalogClient:
    from airflow_provider_floe.catalogs.client import connect
    from airflow_provider_floe.catalogs.fields import catalog_name

    fields: ConnectionFields | None = None
    try:
        fields = connection_fields(conn_id)
        return connect(fields)
    except FloeError as error:
        log.warning("catalog of connection %s cannot be used: %s", conn_id, error)
        return BrokenCatalog(catalog_name(fields) if fields else conn_id, error)


class BrokenCatalog:
    """Stands for a catalog whose connection is wrong: runs that do not need it go on without it."""

    kind = "unknown"

    def __init__(self, name: str, error: FloeError) -> None:
        self.name = name
        self._error = error

    def _refuse(self) -> NoReturn:
        raise self._error

    def namespaces(self) -> list[tuple[str, ...]]:
        """:raises FloeError: what is wrong with the connection."""
        self._refuse()

    def tables(self, namespaces: Sequence[tuple[str, ...]] | None = None) -> Iterator[TableRef]:
        """:raises FloeError: what is wrong with the connection."""
        self._refuse()

    def load(self, table: TableRef) -> Table:
        """:raises FloeError: what is wrong with the connection."""
        self._refuse()

    def metadata_location(self, table: TableRef) -> str | None:
        """:raises FloeError: what is wrong with the connection."""
        self._refuse()

    def cannot(self, operation: Operation) -> str | None:
        """:raises FloeError: what is wrong with the connection."""
        self._refuse()

    def describe(self) -> str:
        """:raises FloeError: what is wrong with the connection."""
        self._refuse()
