"""The store, put together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime

from airflow_provider_floe.stores.sql.database import Database
from airflow_provider_floe.stores.sql.expressions import read_clock
from airflow_provider_floe.stores.sql.file_groups import FileGroupQueries
from airflow_provider_floe.stores.sql.health import HealthQueries
from airflow_provider_floe.stores.sql.journal import JournalQueries
from airflow_provider_floe.stores.sql.leases import LeaseQueries
from airflow_provider_floe.stores.sql.migrations import migrate, read_version
from airflow_provider_floe.stores.sql.operations import OperationQueries
from airflow_provider_floe.stores.sql.plans import PlanQueries
from airflow_provider_floe.stores.sql.policies import PolicyQueries
from airflow_provider_floe.stores.sql.schedules import ScheduleQueries


class SqlStore(
    PolicyQueries,
    HealthQueries,
    PlanQueries,
    OperationQueries,
    ScheduleQueries,
    LeaseQueries,
    JournalQueries,
    FileGroupQueries,
):
    """Implements :class:`~airflow_provider_floe.stores.protocols.FloeStore` on one database.

    :raises StoreUnavailable: when the database does not answer, from here and from every method.
    :raises ConfigurationError: when the schema cannot be brought to the version that this code knows.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.shared = database.shared
        migrate(database)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._database.place}>"

    def now(self) -> datetime:
        """The database's clock, UTC."""
        with self._database.read() as connection:
            return read_clock(connection)

    def schema_version(self) -> int:
        """The version of the schema in place."""
        with self._database.read() as connection:
            return read_version(connection)

    def describe(self) -> str:
        """Kind, place, schema version; no secret."""
        return f"{self._database.place}, schema version {self.schema_version()}"

    def transaction(self) -> AbstractContextManager[None]:
        """Group calls of this thread into one transaction; nested ones join it.

        Other writers of a SQLite file wait meanwhile: keep it short.
        """
        return self._transaction()

    def close(self) -> None:
        """Release connections."""
        self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._database.write():
            yield
