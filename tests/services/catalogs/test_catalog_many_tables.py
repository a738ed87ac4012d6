"""10,000 tables in a REST catalog: how many requests it takes to list them, counted at the server."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from harness.catalogs.base import NAME, connection_fields
from harness.http_proxy import HttpProxy, http_proxy
from harness.services.process import stop
from harness.services.rest import REST
from harness.services.running import use
from harness.services.s3 import file_io_properties

from airflow_provider_floe.catalogs.client import PyicebergCatalog, connect
from airflow_provider_floe.tables import TableRef

TABLES, SPACES = 10_000, 100


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpProxy]:
    """A REST catalog of its own; the rows of its tables are put into the database behind it."""
    home: Path = tmp_path_factory.mktemp("rest")
    with use("s3") as services:
        started = REST.start(home, services)
        assert started.process
        try:
            with http_proxy(started.facts["uri"]) as proxy:
                properties = {"uri": proxy.uri, "properties": file_io_properties(services["s3"])}
                client = connect(connection_fields({"extra": properties}))
                assert isinstance(client, PyicebergCatalog)
                for number in range(SPACES):
                    client.catalog.create_namespace(space(number))
                client.catalog.create_table((*space(0), "real"), schema=pa.schema([("id", pa.int64())]))
                fill(home / "catalog.db")
                yield proxy
        finally:
            stop(started.process)


def space(number: int) -> tuple[str, ...]:
    """Every second namespace lies in the one before."""
    return (f"n{number}",) if number % 2 == 0 else (f"n{number - 1}", f"n{number}")


def fill(database: Path) -> None:
    connection = sqlite3.connect(database, timeout=60)
    with connection:
        (catalog, location) = connection.execute(
            "SELECT catalog_name, metadata_location FROM iceberg_tables"
        ).fetchone()
        connection.executemany(
            "INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, metadata_location, iceberg_type) "
            "VALUES (?, ?, ?, ?, 'TABLE')",
            [(catalog, ".".join(space(number % SPACES)), f"t{number}", location) for number in range(1, TABLES)],
        )
    connection.close()


def client_of(server: HttpProxy, **properties: int) -> PyicebergCatalog:
    found = connect(connection_fields({"extra": {"uri": server.uri, "properties": properties}}))
    assert isinstance(found, PyicebergCatalog)
    server.requests.clear()
    return found


def test_they_are_listed_with_two_requests_a_namespace(server: HttpProxy) -> None:
    client = client_of(server)
    tables = list(client.tables())
    assert len(tables) == len(set(tables)) == TABLES
    assert TableRef(NAME, space(7), "t7") in tables
    # the configuration and the top, then children and tables of each; none is loaded
    assert len(server.requests) <= 2 + 2 * SPACES
    assert not [path for _, path in server.requests if "/tables/" in path]


def test_a_policys_namespaces_alone_are_listed(server: HttpProxy) -> None:
    client = client_of(server)
    found = list(client.tables([space(3), space(4)]))
    assert len(found) == 2 * TABLES // SPACES
    assert len(server.requests) == 3


def test_pages_are_followed(server: HttpProxy) -> None:
    client = client_of(server, **{"rest-page-size": 30})
    assert len(list(client.tables([space(5)]))) == TABLES // SPACES
    pages = [path for _, path in server.requests if path.partition("?")[0].endswith("/tables")]
    assert len(pages) == 4
    assert sum("pageToken=" in path for path in pages) >= 3
