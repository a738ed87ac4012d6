"""Base of the rooms of the store."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table, select

from airflow_provider_floe.health.report import TableId
from airflow_provider_floe.stores.sql.database import Database
from airflow_provider_floe.tables import TableRef

CHUNK = 500
"""Values in one ``IN (...)`` list, far below every database's limit."""


class Queries:
    """Queries on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database


def table_key(table: TableRef | TableId) -> str:
    """How a table is named in every row: the dotted reference, parts with dots quoted."""
    return str(table.ref() if isinstance(table, TableId) else table)


def document_of(connection: Connection, table: Table, key: str) -> str:
    """The document of the row with this id.

    :raises KeyError: when there is none.
    """
    found: Any = connection.execute(select(table.c.document).where(table.c.id == key)).scalar_one_or_none()
    if found is None:
        raise KeyError(key)
    return str(found)
