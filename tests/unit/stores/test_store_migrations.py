from __future__ import annotations

from pathlib import Path

import pytest
from harness.store_documents import EXPIRE, NOON, TABLE, execution
from sqlalchemy import Connection

from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.stores.open import open_store
from airflow_provider_floe.stores.protocols import SlotOutcome
from airflow_provider_floe.stores.sql.migrations import MIGRATIONS, migrate


def add_column(connection: Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE floe_slots ADD COLUMN note TEXT")


def fails_halfway(connection: Connection) -> None:
    add_column(connection)
    connection.exec_driver_sql("ALTER TABLE no_such_table ADD COLUMN note TEXT")


@pytest.fixture
def url(tmp_path: Path) -> str:
    store = open_store(f"sqlite:///{tmp_path}/floe.db")
    store.record_slot(execution(NOON, SlotOutcome.EXECUTED))
    store.close()
    return f"sqlite:///{tmp_path}/floe.db"


def test_a_later_version_is_applied_once_and_keeps_the_data(url: str) -> None:
    database = open_store(url)._database  # type: ignore[attr-defined]
    assert migrate(database, (*MIGRATIONS, add_column)) == 3
    assert migrate(database, (*MIGRATIONS, add_column)) == 3
    with database.read() as connection:
        row = connection.exec_driver_sql("SELECT operation, note FROM floe_slots").one()
        versions = connection.exec_driver_sql("SELECT version FROM floe_schema_versions ORDER BY 1").scalars().all()
    assert tuple(row) == (EXPIRE.value, None)
    assert versions == [1, 2, 3]


def test_older_code_refuses_a_newer_schema_and_leaves_it(url: str) -> None:
    store = open_store(url)
    migrate(store._database, (*MIGRATIONS, add_column))  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match=r"schema version 3, but .* up to 2: upgrade airflow-provider-floe"):
        open_store(url)
    assert store.schema_version() == 3
    assert store.consumed_slot(TABLE, EXPIRE) == NOON


def test_a_migration_that_fails_changes_nothing(url: str) -> None:
    store = open_store(url)
    with pytest.raises(Exception, match="no_such_table"):
        migrate(store._database, (*MIGRATIONS, fails_halfway))  # type: ignore[attr-defined]
    assert store.schema_version() == 2
    assert migrate(store._database, (*MIGRATIONS, add_column)) == 3  # type: ignore[attr-defined]
