from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from harness.rest_server import RestServer, rest_server

from airflow_provider_floe.catalogs.base import CatalogClient, ConnectionFields
from airflow_provider_floe.catalogs.client import connect
from airflow_provider_floe.errors import CatalogUnavailable, TableNotFound, TableUnreadable
from airflow_provider_floe.tables import TableRef

ROWS = pa.table({"id": pa.array([1, 2, 3], pa.int64())})
SECRET = "hunter2-secret"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RestServer]:
    with rest_server(tmp_path) as running:
        yield running


def client(server: RestServer, **extra: Any) -> CatalogClient:
    return connect(ConnectionFields("lake_conn", extra={"catalog_kind": "rest", "uri": server.uri, **extra}))


def fill(server: RestServer, namespaces: list[tuple[str, ...]], tables: int = 1) -> list[TableRef]:
    made = []
    for namespace in namespaces:
        server.catalog.create_namespace(namespace)
        for number in range(tables):
            server.catalog.create_table((*namespace, f"t{number}"), schema=ROWS.schema)
            made.append(TableRef("lake_conn", namespace, f"t{number}"))
    return made


def test_nested_namespaces_and_all_pages_are_listed(server: RestServer) -> None:
    namespaces: list[tuple[str, ...]] = [("a",), ("a", "b"), ("a", "b", "c"), ("d",), ("e",), ("f",)]
    tables = fill(server, namespaces, tables=5)
    catalog = client(server)
    assert catalog.namespaces() == namespaces
    assert sorted(catalog.tables()) == sorted(tables)


def test_only_the_namespaces_asked_for_are_listed_and_nothing_is_loaded(server: RestServer) -> None:
    fill(server, [("a",), ("a", "b"), ("c",)], tables=3)
    catalog = client(server)
    found = list(catalog.tables([("a", "b"), ("gone",)]))
    assert found == [TableRef("lake_conn", ("a", "b"), f"t{number}") for number in range(3)]
    listings = [path for method, path in server.requests if path.endswith("/tables")]
    assert not [path for path in listings if "/c/" in path]
    assert not [path for _, path in server.requests if "/tables/" in path]


def test_tables_bear_the_name_that_policies_use(server: RestServer) -> None:
    fill(server, [("a",)])
    catalog = client(server, catalog_name="prod")
    assert catalog.name == "prod"
    assert [str(table) for table in catalog.tables()] == ["prod.a.t0"]


def test_load_reads_the_table_anew(server: RestServer) -> None:
    (ref,) = fill(server, [("a",)])
    catalog = client(server)
    assert catalog.load(ref).current_snapshot() is None
    server.catalog.load_table("a.t0").append(ROWS)
    assert catalog.load(ref).scan().to_arrow().num_rows == 3
    assert catalog.metadata_location(ref) is None


def test_a_missing_table_is_not_found(server: RestServer) -> None:
    fill(server, [("a",)])
    with pytest.raises(TableNotFound, match=r"lake_conn\.a\.nope.*'lake_conn'"):
        client(server).load(TableRef("lake_conn", ("a",), "nope"))


def test_a_read_that_meets_a_busy_server_is_tried_again(server: RestServer) -> None:
    fill(server, [("a",)])
    catalog = client(server)
    catalog.namespaces()
    server.failures = [503]
    assert len(list(catalog.tables([("a",)]))) == 1


@pytest.mark.parametrize("code", [400, 404, 501])
def test_a_server_without_nested_namespaces_is_listed_flat(server: RestServer, code: int) -> None:
    fill(server, [("a",)])
    catalog = client(server)
    assert catalog.namespaces() == [("a",)]
    server.failures = [0, code]
    assert catalog.namespaces() == [("a",)]
    assert server.failures == []


def test_a_server_error_names_connection_and_what_to_check(server: RestServer) -> None:
    catalog = client(server)
    catalog.namespaces()
    server.failures = [500]
    with pytest.raises(CatalogUnavailable, match=r"'lake_conn'.*as the test asked for.*check that"):
        catalog.namespaces()
    assert catalog.namespaces() == []


def test_a_table_that_may_not_be_loaded_is_unreadable(server: RestServer) -> None:
    (ref,) = fill(server, [("a",)])
    catalog = client(server)
    catalog.namespaces()
    server.failures = [403]
    with pytest.raises(TableUnreadable, match=r"credential of connection 'lake_conn' may not load it"):
        catalog.load(ref)


def test_login_and_password_are_client_id_and_secret(tmp_path: Path) -> None:
    with rest_server(tmp_path, token="let-me-in") as server:
        fill(server, [("a",)])
        good = ConnectionFields("c", host=server.uri, login="client", password="secret", extra={"catalog_kind": "rest"})
        assert connect(good).namespaces() == [("a",)]
        assert connect(ConnectionFields("c", host=server.uri, password="let-me-in")).namespaces() == [("a",)]


def test_without_credentials_no_sign_in_is_tried(server: RestServer) -> None:
    client(server).namespaces()
    assert server.authorizations == {None}


def test_a_server_that_asks_for_a_sign_in_that_the_connection_lacks(tmp_path: Path) -> None:
    with (
        rest_server(tmp_path, token="let-me-in") as server,
        pytest.raises(CatalogUnavailable, match=r"who are you\?.*demands a sign-in: give .*'login' and 'password'"),
    ):
        client(server).namespaces()


def test_a_wrong_secret_is_reported_without_showing_it(tmp_path: Path) -> None:
    with rest_server(tmp_path, token="let-me-in") as server:
        catalog = connect(ConnectionFields("c", host=server.uri, login="client", password=SECRET))
        with pytest.raises(CatalogUnavailable, match=r"correct fields 'login' and 'password': .*refused") as caught:
            catalog.namespaces()
    check_hidden(caught.value)
    assert SECRET not in repr(catalog)


def test_nested_settings_of_an_iceberg_connection_stay_hidden_too(server: RestServer) -> None:
    auth = {"type": "basic", "basic": {"username": "me", "password": SECRET}}
    connection = ConnectionFields("theirs", conn_type="iceberg", host=server.uri, extra={"auth": auth, "n": 1})
    catalog = connect(connection)
    assert catalog.namespaces() == []
    server.failures, server.failure_message = [500], f"no such password: {SECRET}"
    with pytest.raises(CatalogUnavailable, match=r"no such password: \*\*\*") as caught:
        catalog.namespaces()
    check_hidden(caught.value)


def check_hidden(error: BaseException) -> None:
    shown: BaseException | None = error
    while shown is not None:
        assert SECRET not in str(shown)
        shown = shown.__cause__


def test_a_server_that_is_no_catalog_is_unavailable(server: RestServer) -> None:
    catalog = connect(ConnectionFields("c", host=f"{server.uri}/elsewhere"))
    with pytest.raises(CatalogUnavailable, match=r"'c'.*check that http://127\.0\.0\.1"):
        catalog.namespaces()


def test_a_server_that_is_down_is_unavailable(tmp_path: Path) -> None:
    with rest_server(tmp_path) as server:
        uri = server.uri
    with pytest.raises(CatalogUnavailable, match=r"'c'.*the server of .* runs, and host and port in field 'host'"):
        list(connect(ConnectionFields("c", host=uri)).tables())


def test_a_connection_of_the_iceberg_provider_is_taken_as_it_is(tmp_path: Path) -> None:
    with rest_server(tmp_path, token="let-me-in") as server:
        fill(server, [("a",)])
        connection = ConnectionFields(
            "theirs",
            conn_type="iceberg",
            host=server.uri,
            login="client",
            password="secret",
            extra={"rest-page-size": "1", "some.future.property": "x"},
        )
        catalog = connect(connection)
        assert [str(table) for table in catalog.tables()] == ["theirs.a.t0"]


def test_describe_names_server_and_namespaces_but_no_secret(tmp_path: Path) -> None:
    with rest_server(tmp_path, token="let-me-in") as server:
        fill(server, [("a",), ("b",)])
        catalog = connect(ConnectionFields("c", host=server.uri, login="client", password="secret"))
        text = catalog.describe()
        assert "2 namespaces" in text
        assert server.uri in text
        assert "secret" not in text


@pytest.mark.parametrize(
    ("conn_type", "fix"),
    [
        ("floe", r"set field 'access_delegation' to none, .*'properties' \(s3\.access-key-id"),
        ("iceberg", r'write "header\.X-Iceberg-Access-Delegation": "" into the extra'),
    ],
)
def test_a_catalog_without_credentials_to_vend_is_told_from_one_that_is_down(
    server: RestServer, conn_type: str, fix: str
) -> None:
    (ref,) = fill(server, [("a",)])
    catalog = connect(ConnectionFields("lake_conn", conn_type=conn_type, host=server.uri))
    catalog.namespaces()
    server.failures, server.failure_message = (
        [400],
        "Credential vending was requested, but no credentials are available",
    )
    with pytest.raises(CatalogUnavailable, match=fix):
        catalog.load(ref)


@pytest.mark.parametrize(
    ("message", "fix"),
    [
        ("Unknown warehouse: none", "correct field 'warehouse': 'prod' is none of the catalog's"),
        ("cannot read s3://warehouse/table", "is up and is an Iceberg catalog, and field 'warehouse'"),
    ],
)
def test_a_wrong_warehouse_is_told_from_a_path_of_that_name(server: RestServer, message: str, fix: str) -> None:
    server.failures, server.failure_message = [500], message
    with pytest.raises(CatalogUnavailable, match=fix):
        client(server, warehouse="prod").namespaces()
