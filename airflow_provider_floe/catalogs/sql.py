"""Catalogs that are tables in a SQL database, as Iceberg's JDBC catalog lays them out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pyiceberg.catalog.sql import IcebergNamespaceProperties, IcebergTables, SqlCatalog
from sqlalchemy import make_url, select, union
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session

from airflow_provider_floe.catalogs.base import ConnectionFields
from airflow_provider_floe.catalogs.fields import check_extra, free_properties, text, wrong
from airflow_provider_floe.tables import Operation, TableRef

_FIX = "write sqlite:////path/catalog.db or postgresql://host/database, or give host, schema, login and password"
_CONNECT_SECONDS = 10


class SqlKind:
    """Kind ``sql``: a SQLite file or PostgreSQL, by ``uri`` or by the connection's host, port, schema and login.

    The catalog's name stands in every row of such a database: the connection's ``catalog_name`` must be that one.
    """

    name = "sql"

    def properties(self, connection: ConnectionFields) -> dict[str, str]:
        """See :meth:`CatalogKind.properties`."""
        check_extra(connection)
        found = {
            "type": "sql",
            "uri": self._url(connection).render_as_string(hide_password=False),
            "pool_pre_ping": "true",
            # A catalog that is not there is a mistake in the connection, not a reason to make one.
            "init_catalog_tables": "false",
            **free_properties(connection),
        }
        if warehouse := text(connection, "warehouse"):
            found["warehouse"] = warehouse
        return found

    def cannot(self, operation: Operation) -> str | None:
        """A SQL catalog takes part in every operation."""
        return None

    def _url(self, connection: ConnectionFields) -> URL:
        host = (connection.host or "").strip()
        uri = text(connection, "uri") or (host if "://" in host else None)
        field = "uri" if text(connection, "uri") else "host"
        if uri is None:
            if not host:
                raise wrong(connection, "uri", "is missing", _FIX)
            field = "schema"
            url = URL.create("postgresql", host=host, port=connection.port, database=connection.schema)
        else:
            try:
                url = make_url(uri)
            except ArgumentError as error:
                raise wrong(connection, field, "is no database URL", _FIX) from error
        backend = url.drivername.partition("+")[0]
        if backend == "sqlite":
            return self._sqlite(connection, field, url)
        if backend in ("postgresql", "postgres"):
            return self._postgresql(connection, field, url)
        raise wrong(connection, field, f"database {backend!r} is not known", _FIX)

    def _sqlite(self, connection: ConnectionFields, field: str, url: URL) -> URL:
        path = url.database or ""
        if path in ("", ":memory:"):
            raise wrong(connection, field, "a SQLite catalog in memory is empty in every other process", _FIX)
        if not path.startswith(("/", "file:")) and path[1:3] not in (":/", ":\\"):
            raise wrong(connection, field, f"{path!r} is relative, and tasks run in different folders", _FIX)
        return url

    def _postgresql(self, connection: ConnectionFields, field: str, url: URL) -> URL:
        if not url.database:
            raise wrong(connection, field, "names no database", _FIX)
        driver = url.drivername if "+" in url.drivername else "postgresql+psycopg2"
        return url.set(
            drivername=driver,
            username=url.username or connection.login or None,
            password=url.password or connection.password or None,
            query={"connect_timeout": str(_CONNECT_SECONDS), **url.query},
        )


def sql_catalog_names(catalog: SqlCatalog) -> list[str]:
    """Names of the catalogs that have rows in the database."""
    statement = union(select(IcebergTables.catalog_name), select(IcebergNamespaceProperties.catalog_name))
    with Session(catalog.engine) as session:
        return sorted(session.execute(statement).scalars())


def sql_namespaces(catalog: SqlCatalog) -> list[tuple[str, ...]]:
    """All namespaces, nested ones included, in one query."""
    statement = union(
        select(IcebergTables.table_namespace).where(IcebergTables.catalog_name == catalog.name),
        select(IcebergNamespaceProperties.namespace).where(IcebergNamespaceProperties.catalog_name == catalog.name),
    )
    with Session(catalog.engine) as session:
        return sorted(tuple(namespace.split(".")) for namespace in session.execute(statement).scalars())


def sql_tables(catalog: SqlCatalog, name: str, namespaces: Sequence[tuple[str, ...]] | None) -> Iterator[TableRef]:
    """The tables of the namespaces (default: all) in one query, none of them loaded.

    :param name: the catalog's name in the references.
    """
    statement = select(IcebergTables.table_namespace, IcebergTables.table_name).where(
        IcebergTables.catalog_name == catalog.name
    )
    if (only_tables := catalog._iceberg_type_filter()) is not None:
        statement = statement.where(only_tables)
    wanted = None if namespaces is None else set(namespaces)
    with Session(catalog.engine) as session:
        rows = session.execute(statement.order_by(IcebergTables.table_namespace, IcebergTables.table_name)).all()
    for namespace, table in rows:
        levels = tuple(namespace.split("."))
        if wanted is None or levels in wanted:
            yield TableRef(name, levels, table)


def sql_metadata_location(catalog: SqlCatalog, table: TableRef) -> str | None:
    """Path of the table's current metadata file; None when there is no such table."""
    statement = select(IcebergTables.metadata_location).where(
        IcebergTables.catalog_name == catalog.name,
        IcebergTables.table_namespace == ".".join(table.namespace),
        IcebergTables.table_name == table.name,
    )
    with Session(catalog.engine) as session:
        location: str | None = session.scalar(statement)
        return location
