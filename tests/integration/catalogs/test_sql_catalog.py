from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from sqlalchemy.orm import Session

from airflow_provider_floe.catalogs.base import CatalogClient, ConnectionFields
from airflow_provider_floe.catalogs.client import connect
from airflow_provider_floe.errors import CatalogUnavailable, TableNotFound, TableUnreadable
from airflow_provider_floe.tables import TableRef

ROWS = pa.table({"id": pa.array([1, 2, 3], pa.int64())})


@pytest.fixture
def lake(tmp_path: Path) -> SqlCatalog:
    catalog = SqlCatalog("lake", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}/warehouse")
    for namespace in (("a",), ("a", "b"), ("c",)):
        catalog.create_namespace(namespace)
        catalog.create_table((*namespace, "events"), schema=ROWS.schema)
    return catalog


def client(tmp_path: Path, **extra: Any) -> CatalogClient:
    uri = f"sqlite:///{tmp_path}/catalog.db"
    return connect(ConnectionFields("lake", extra={"catalog_kind": "sql", "uri": uri, **extra}))


def test_nested_namespaces_and_their_tables(tmp_path: Path, lake: SqlCatalog) -> None:
    catalog = client(tmp_path)
    assert catalog.namespaces() == [("a",), ("a", "b"), ("c",)]
    assert [str(table) for table in catalog.tables()] == ["lake.a.events", "lake.a.b.events", "lake.c.events"]
    assert [str(table) for table in catalog.tables([("a", "b"), ("gone",)])] == ["lake.a.b.events"]


def test_ten_thousand_tables_are_listed_without_loading_one(tmp_path: Path, lake: SqlCatalog) -> None:
    with Session(lake.engine) as session:
        session.add_all(
            IcebergTables(
                catalog_name="lake",
                table_namespace=f"n{number % 100}",
                table_name=f"t{number}",
                metadata_location=f"file:///nowhere/{number}.json",
                previous_metadata_location=None,
            )
            for number in range(10_000)
        )
        session.commit()
    catalog = client(tmp_path)
    tables = list(catalog.tables())
    assert len(set(tables)) == 10_003
    assert len(catalog.namespaces()) == 103
    assert catalog.metadata_location(TableRef("lake", ("n7",), "t7")) == "file:///nowhere/7.json"


def test_metadata_location_follows_the_table(tmp_path: Path, lake: SqlCatalog) -> None:
    catalog, ref = client(tmp_path), TableRef("lake", ("a",), "events")
    before = catalog.metadata_location(ref)
    lake.load_table(ref.identifier).append(ROWS)
    after = catalog.metadata_location(ref)
    assert before != after
    assert after == catalog.load(ref).metadata_location
    assert catalog.metadata_location(TableRef("lake", ("a",), "nope")) is None


def test_the_catalog_name_selects_the_rows_of_one_catalog(tmp_path: Path, lake: SqlCatalog) -> None:
    other = SqlCatalog("other", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}/other")
    other.create_namespace("z")
    other.create_table("z.only", schema=ROWS.schema)
    assert [str(table) for table in client(tmp_path, catalog_name="other").tables()] == ["other.z.only"]


def test_a_table_whose_metadata_file_is_gone_is_unreadable(tmp_path: Path, lake: SqlCatalog) -> None:
    catalog, ref = client(tmp_path), TableRef("lake", ("c",), "events")
    location = catalog.metadata_location(ref)
    assert location is not None
    os.remove(location.removeprefix("file://"))
    with pytest.raises(TableUnreadable, match=r"lake\.c\.events: its metadata cannot be read"):
        catalog.load(ref)
    assert catalog.load(TableRef("lake", ("a",), "events"))


def test_a_table_whose_metadata_file_is_no_json_is_unreadable(tmp_path: Path, lake: SqlCatalog) -> None:
    catalog, ref = client(tmp_path), TableRef("lake", ("c",), "events")
    location = catalog.metadata_location(ref)
    assert location is not None
    Path(location.removeprefix("file://")).write_text("not json")
    with pytest.raises(TableUnreadable):
        catalog.load(ref)


def test_a_missing_table_is_not_found(tmp_path: Path, lake: SqlCatalog) -> None:
    with pytest.raises(TableNotFound, match=r"lake\.a\.nope"):
        client(tmp_path).load(TableRef("lake", ("a",), "nope"))


def test_many_threads_share_one_client(tmp_path: Path, lake: SqlCatalog) -> None:
    catalog = client(tmp_path)
    refs = list(catalog.tables()) * 20
    with ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(catalog.load, refs))
    assert [table.name() for table in loaded] == [ref.identifier for ref in refs]


def test_a_forked_process_opens_its_own_database(tmp_path: Path, lake: SqlCatalog) -> None:
    catalog = client(tmp_path)
    expected = len(list(catalog.tables()))
    process = os.fork()
    if process == 0:
        os._exit(0 if len(list(catalog.tables())) == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert len(list(catalog.tables())) == expected


def test_a_wrong_path_is_reported_and_no_catalog_is_made(tmp_path: Path) -> None:
    with pytest.raises(CatalogUnavailable, match=r"'lake'.*there is no file .*catalog\.db"):
        client(tmp_path).namespaces()
    assert list(tmp_path.iterdir()) == []


def test_a_database_without_catalog_tables_is_reported_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").touch()
    with pytest.raises(CatalogUnavailable, match=r"field 'uri'.* does not hold the catalog's tables"):
        client(tmp_path).namespaces()
    assert (tmp_path / "catalog.db").stat().st_size == 0


def test_a_postgresql_server_that_is_down_is_reported_without_the_password() -> None:
    connection = ConnectionFields(
        "pg", host="127.0.0.1", port=1, schema="lake", login="floe", password="hunter2", extra={"catalog_kind": "sql"}
    )
    catalog = connect(connection)
    with pytest.raises(CatalogUnavailable, match=r"'pg'.*fields 'host' and 'port': .* check that it runs") as caught:
        catalog.namespaces()
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__} {catalog!r}"


def test_describe_names_file_and_namespaces(tmp_path: Path, lake: SqlCatalog) -> None:
    text = client(tmp_path).describe()
    assert f"sqlite:///{tmp_path}/catalog.db" in text
    assert "3 namespaces" in text
