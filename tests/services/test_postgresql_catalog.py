from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from harness.postgres import PostgreSQL, postgresql
from pyiceberg.catalog.sql import SqlCatalog

from airflow_provider_floe.catalogs.base import ConnectionFields
from airflow_provider_floe.catalogs.client import connect
from airflow_provider_floe.errors import CatalogUnavailable
from airflow_provider_floe.tables import TableRef

pytestmark = pytest.mark.services

ROWS = pa.table({"id": pa.array([1, 2, 3], pa.int64())})


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with postgresql() as running:
        yield running


def connection(server: PostgreSQL, password: str | None = None) -> ConnectionFields:
    return ConnectionFields(
        "lake",
        host=server.host,
        port=server.port,
        schema=server.database,
        login=server.user,
        password=password or server.password,
        extra={"catalog_kind": "sql"},
    )


def test_a_catalog_on_postgresql(server: PostgreSQL, tmp_path: Path) -> None:
    with pytest.raises(CatalogUnavailable, match=r"field 'schema'.* does not hold the catalog's tables"):
        connect(connection(server)).namespaces()

    made = SqlCatalog("lake", uri=server.url(driver="psycopg2"), warehouse=f"file://{tmp_path}")
    for namespace in (("a",), ("a", "b")):
        made.create_namespace(namespace)
        made.create_table((*namespace, "events"), schema=ROWS.schema).append(ROWS)
    catalog = connect(connection(server))
    tables = [TableRef("lake", ("a",), "events"), TableRef("lake", ("a", "b"), "events")]
    assert list(catalog.tables()) == tables
    with ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(catalog.load, tables * 10))
    assert {table.scan().to_arrow().num_rows for table in loaded} == {3}
    assert catalog.metadata_location(tables[0]) == loaded[0].metadata_location
    assert "2 namespaces" in catalog.describe()
    assert server.password not in catalog.describe()


def test_a_wrong_password_is_reported_without_showing_it(server: PostgreSQL) -> None:
    with pytest.raises(CatalogUnavailable, match=r"'lake'.*check fields 'login' and 'password'") as caught:
        connect(connection(server, "not the password")).namespaces()
    assert "not the password" not in str(caught.value)
