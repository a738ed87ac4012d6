"""Brings the schema to the version that this code knows, also when many processes start at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from sqlalchemy import Connection, exc, func, insert, inspect, select

from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.stores.sql.database import Database, reason
from airflow_provider_floe.stores.sql.expressions import read_clock, serialise
from airflow_provider_floe.stores.sql.policies import REVISION
from airflow_provider_floe.stores.sql.schema import counters, file_groups, metadata, schema_versions

log = logging.getLogger(__name__)

Migration = Callable[[Connection], None]

MIGRATION_LOCK = 1


def create_tables(connection: Connection) -> None:
    """Version 1."""
    metadata.create_all(connection, [table for table in metadata.sorted_tables if table is not file_groups])
    connection.execute(insert(counters).values(name=REVISION, value=0))


def share_file_groups(connection: Connection) -> None:
    """Version 2."""
    file_groups.create(connection)


MIGRATIONS: tuple[Migration, ...] = (create_tables, share_file_groups)
"""In order; the n-th one leads to version n. Each runs in the transaction that records its version."""


def migrate(database: Database, migrations: Sequence[Migration] = MIGRATIONS) -> int:
    """Apply what is missing; returns the version in place.

    :raises ConfigurationError: when the schema is newer than this code, or the user may not create tables.
    :raises StoreUnavailable: when the database does not answer.
    """
    with database.read() as connection:
        version = read_version(connection)
    if version < len(migrations):
        try:
            version = _apply(database, migrations)
        except exc.ProgrammingError as error:
            raise ConfigurationError(
                f"{database.place} refused to create the tables of the Floe store: {reason(error)}; give the user the "
                "right to create tables in that schema"
            ) from error
    if version > len(migrations):
        raise ConfigurationError(
            f"{database.place} has schema version {version}, but this airflow-provider-floe knows versions up to "
            f"{len(migrations)}: upgrade airflow-provider-floe on this host to the version that the others run"
        )
    return version


def read_version(connection: Connection) -> int:
    """The newest version applied; 0 for an empty database."""
    if not inspect(connection).has_table(schema_versions.name):
        return 0
    return int(connection.execute(select(func.coalesce(func.max(schema_versions.c.version), 0))).scalar_one())


def _apply(database: Database, migrations: Sequence[Migration]) -> int:
    with database.write() as connection:
        serialise(connection, MIGRATION_LOCK)
        version = read_version(connection)
        for number, migration in enumerate(migrations[version:], start=version + 1):
            migration(connection)
            connection.execute(insert(schema_versions).values(version=number, applied_at=read_clock(connection)))
            log.info("%s is now at schema version %d", database.place, number)
        return max(version, len(migrations))
