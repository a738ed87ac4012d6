"""Catalogs that are busy, or die in the middle of a commit: nothing is lost, and what happened is found out."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from catalog_tables import Lake, maintain
from harness.catalogs.base import CatalogUnderTest, Place, changed, connection_fields
from harness.catalogs.registry import catalogs
from harness.http_proxy import Answer, HttpProxy, http_proxy
from harness.services.process import free_port
from harness.tables import data_files, rows_digest
from harness.tcp_proxy import Cut, TcpProxy, tcp_proxy

from airflow_provider_floe.catalogs.client import connect
from airflow_provider_floe.catalogs.rest_transport import Patience
from airflow_provider_floe.errors import CatalogUnavailable
from airflow_provider_floe.iceberg.listing import file_size
from airflow_provider_floe.maintenance.settings import Settings
from airflow_provider_floe.maintenance.settle import settle_all
from airflow_provider_floe.stores.protocols import OperationStatus
from airflow_provider_floe.tables import Operation

HTTP = [one for one in catalogs() if one.kind not in ("hive", "sql")]
SEAWEEDFS, HIVE = (next(one for one in catalogs() if one.name == name) for name in ("seaweedfs", "hive"))
COMMITS = {"hive": b"alter_table", "sql": b"COMMIT"}
"""What a client sends to commit, by the kind of catalog, where it is not an HTTP request."""


def names(catalog: CatalogUnderTest) -> str:
    return catalog.name


def address(connection: Mapping[str, Any]) -> tuple[str, int]:
    if "uri" in connection["extra"]:
        parts = urlsplit(connection["extra"]["uri"])
        assert parts.hostname
        assert parts.port
        return parts.hostname, parts.port
    return connection["host"], connection["port"]


def moved(connection: Mapping[str, Any], port: int) -> dict[str, Any]:
    """The connection to a proxy on this host."""
    if "uri" in connection["extra"]:
        host, old = address(connection)
        return changed(
            connection, extra={"uri": connection["extra"]["uri"].replace(f"{host}:{old}", f"127.0.0.1:{port}")}
        )
    return changed(connection, host="127.0.0.1", port=port)


@pytest.fixture
def tcp(place: Place) -> Iterator[TcpProxy]:
    with tcp_proxy(*address(place.connection)) as proxy:
        yield proxy


@pytest.mark.parametrize("cut", Cut, ids=lambda cut: cut.name.lower())
def test_a_catalog_that_dies_in_the_middle_of_a_commit_loses_nothing(
    lake: Lake, place: Place, tcp: TcpProxy, cut: Cut
) -> None:
    table = lake.small_files(files=4)
    digest = rows_digest(table)
    through = Lake.of(Place(moved(place.connection, tcp.port)), lake.namespace)
    env = through.environment()
    maintain(env, table, Operation.REWRITE_DATA_FILES, dry_run=True)
    tcp.break_at(COMMITS.get(through.client.kind, b"POST /"), cut)
    first = maintain(env, table, Operation.REWRITE_DATA_FILES)
    assert tcp.cuts == 1
    (record,) = first.records
    assert rows_digest(table) == digest
    assert record.status is (OperationStatus.UNKNOWN if cut is Cut.BEFORE else OperationStatus.SUCCESS)
    assert len(data_files(table)) == (4 if cut is Cut.BEFORE else 1)
    for file in data_files(table):
        assert file_size(table.io, file.file_path) == file.file_size_in_bytes

    second = maintain(env, table, Operation.REWRITE_DATA_FILES)
    assert not second.verdict.failed, second.verdict.failures
    assert rows_digest(table) == digest
    assert len(data_files(table)) == 1
    soon = replace(env, settings=Settings(lease_seconds=1))
    deadline = time.monotonic() + 60
    while env.store.operations(statuses=(OperationStatus.UNKNOWN,)):
        assert time.monotonic() < deadline, "the outcome stayed unknown"
        settle_all(soon)
        time.sleep(0.1)
    assert env.store.operation(record.id).status is not OperationStatus.FAILED


@pytest.fixture
def http(place: Place) -> Iterator[HttpProxy]:
    with http_proxy(place.connection["extra"]["uri"]) as proxy:
        yield proxy


@pytest.fixture
def through(lake: Lake, place: Place, http: HttpProxy) -> Lake:
    """The catalog by way of the proxy."""
    port = urlsplit(http.uri).port
    assert port
    return Lake.of(Place(moved(place.connection, port)), lake.namespace)


@pytest.mark.parametrize("under_test", HTTP, ids=names, indirect=True)
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_catalog_is_given_the_time_that_it_asks_for(
    lake: Lake, through: Lake, http: HttpProxy, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(Patience, "sleep", lambda self, response: waited.append(self.get_retry_after(response)))
    table = lake.small_files(files=3)
    digest = rows_digest(table)
    http.answers = [
        Answer(status, method="GET", path=r"/namespaces", headers={"Retry-After": "7"}, times=2),
        Answer(status, method="POST", path=r"/tables/events", headers={"Retry-After": "5"}, times=2),
    ]
    result = maintain(through.environment(), table, Operation.REWRITE_DATA_FILES)
    assert not result.verdict.failed, result.verdict.failures
    assert sorted(waited) == [5, 5, 7, 7]
    assert [method for method, path in http.requests if path.endswith("/tables/events")].count("POST") == 3
    assert rows_digest(table) == digest
    assert len(data_files(table)) == 1


@pytest.mark.parametrize("under_test", HTTP[:1], ids=names, indirect=True)
@pytest.mark.parametrize("wait", ["3600", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_catalog_that_asks_for_too_much_patience_is_reported(
    lake: Lake, through: Lake, http: HttpProxy, wait: str
) -> None:
    table = lake.small_files(files=3)
    http.answers = [Answer(503, method="GET", path="/namespaces", headers={"Retry-After": wait}, times=99)]
    with pytest.raises(CatalogUnavailable, match=f"is busy and asks to be left alone for {wait}"):
        through.client.namespaces()
    assert len(http.requests) == 2  # the configuration, and the one that was refused
    http.answers = [Answer(429, method="POST", path="/tables/", headers={"Retry-After": wait}, times=1)]
    result = maintain(through.environment(), table, Operation.REWRITE_DATA_FILES)
    assert not result.verdict.failed, result.verdict.failures
    assert len(data_files(table)) == 1


@pytest.mark.parametrize("under_test", HTTP[:1], ids=names, indirect=True)
@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_commit_that_a_gateway_gave_up_on_is_looked_for_and_not_repeated(
    lake: Lake, through: Lake, http: HttpProxy, status: int
) -> None:
    table = lake.small_files(files=3)
    digest = rows_digest(table)
    http.answers = [Answer(status, method="POST", path="/tables/")]
    result = maintain(through.environment(), table, Operation.REWRITE_DATA_FILES)
    (record,) = result.records
    assert record.status is OperationStatus.UNKNOWN
    assert len([path for method, path in http.requests if method == "POST" and "/tables/" in path]) == 1
    assert rows_digest(table) == digest
    assert len(data_files(table)) == 3


@pytest.mark.parametrize("under_test", [SEAWEEDFS], ids=names, indirect=True)
def test_a_token_that_ran_out_is_replaced(lake: Lake, through: Lake, http: HttpProxy) -> None:
    table = lake.small_files(files=3)
    session = through.client.catalog._session  # type: ignore[attr-defined]
    assert through.client.tables([(lake.namespace,)])
    session.auth.auth_manager._token = "a-token-of-yesterday"
    assert [table.name for table in through.client.tables([(lake.namespace,)])] == ["events"]
    session.auth.auth_manager._token = "a-token-of-yesterday"
    result = maintain(through.environment(), table, Operation.REWRITE_DATA_FILES)
    assert not result.verdict.failed, result.verdict.failures
    assert len(data_files(table)) == 1
    assert [path for _, path in http.requests].count("/v1/oauth/tokens") >= 3


@pytest.mark.parametrize("under_test", [SEAWEEDFS], ids=names, indirect=True)
def test_a_token_that_runs_out_at_the_commit_is_replaced_and_the_commit_repeated(
    lake: Lake, through: Lake, http: HttpProxy
) -> None:
    table = lake.small_files(files=3)
    ran_out = b'{"error": {"message": "expired", "type": "NotAuthorizedException", "code": 401}}'
    http.answers = [Answer(401, method="POST", path="/tables/", body=ran_out)]
    result = maintain(through.environment(), table, Operation.REWRITE_DATA_FILES)
    assert not result.verdict.failed, result.verdict.failures
    assert len(data_files(table)) == 1


@pytest.mark.parametrize("under_test", [SEAWEEDFS], ids=names, indirect=True)
def test_a_token_endpoint_that_is_busy_or_refuses(place: Place, http: HttpProxy) -> None:
    def open_with(*answers: Answer) -> str:
        http.answers = list(answers)
        endpoint = f"{http.uri}/v1/oauth/tokens"
        connection = changed(place.connection, extra={"oauth2_server_uri": endpoint, "scope": "everything"})
        return connect(connection_fields(connection)).describe()

    assert "namespace" in open_with(Answer(503, path="/oauth/tokens", headers={"Retry-After": "0"}, times=2))
    no_scope = b'{"error": "invalid_scope", "error_description": "unknown"}'
    with pytest.raises(CatalogUnavailable, match=r"correct field 'scope': .* does not grant 'everything'"):
        open_with(Answer(400, path="/oauth/tokens", body=no_scope))
    with pytest.raises(CatalogUnavailable, match="set field 'oauth2_server_uri' to the token endpoint"):
        open_with(Answer(404, path="/oauth/tokens", body=b"<html>no such page</html>"))


@pytest.mark.parametrize("under_test", [SEAWEEDFS], ids=names, indirect=True)
def test_a_commit_that_is_denied_changes_nothing(lake: Lake, through: Lake, http: HttpProxy) -> None:
    table = lake.small_files(files=3)
    before = {file.file_path for file in data_files(table)}
    denied = b'{"error": {"message": "no such right", "type": "ForbiddenException", "code": 403}}'
    http.answers = [Answer(403, method="POST", path="/tables/", body=denied, times=9)]
    result = maintain(through.environment(), table, Operation.REWRITE_DATA_FILES)
    (record,) = result.records
    assert record.status is OperationStatus.FAILED
    assert "no such right" in str(record.error)
    assert "connection's user may write this table" in str(record.error)
    assert {file.file_path for file in data_files(table)} == before


@pytest.mark.parametrize("under_test", [HIVE], ids=names, indirect=True)
def test_a_lock_of_someone_else_is_named_and_waited_for(lake: Lake) -> None:
    from hive_metastore.ttypes import UnlockRequest

    table = lake.small_files(files=3, **{"commit.retry.num-retries": "0"})
    catalog: Any = lake.catalog
    catalog._lock_check_retries, catalog._lock_check_min_wait_time = 1, 0.01
    with catalog._client as metastore:
        held = metastore.lock(catalog._create_lock_request(lake.namespace, "events"))
        result = maintain(lake.environment(), table, Operation.REWRITE_DATA_FILES)
        metastore.unlock(UnlockRequest(lockid=held.lockid))
    (record,) = result.records
    assert record.status is OperationStatus.FAILED
    assert "lock of the table is held by" in str(record.error)
    assert "(airflow-provider-floe) since" in str(record.error)
    assert "hive.txn.timeout" in str(record.error)
    assert len(data_files(table)) == 3
    again = maintain(lake.environment(), table, Operation.REWRITE_DATA_FILES)
    assert not again.verdict.failed, again.verdict.failures
    assert len(data_files(table)) == 1


@pytest.mark.parametrize("under_test", [HIVE], ids=names, indirect=True)
def test_the_next_metastore_is_asked_when_one_is_down(lake: Lake, place: Place) -> None:
    table = lake.small_files(files=3)
    down = f"thrift://127.0.0.1:{free_port()}"
    uris = f"{down},{place.connection['extra']['uri']}"
    other = Lake.of(Place(changed(place.connection, extra={"uri": uris})), lake.namespace)
    assert [ref.name for ref in other.client.tables([(lake.namespace,)])] == ["events"]
    result = maintain(other.environment(), table, Operation.REWRITE_DATA_FILES)
    assert not result.verdict.failed, result.verdict.failures
    assert len(data_files(table)) == 1


@pytest.mark.parametrize("under_test", [HIVE], ids=names, indirect=True)
def test_a_metastore_that_never_answers_is_given_up_on(
    under_test: CatalogUnderTest, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_floe.catalogs import hive_transport

    monkeypatch.setattr(hive_transport, "READ_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        there = changed(place.connection, extra={"uri": f"thrift://127.0.0.1:{silent.getsockname()[1]}"})
        with pytest.raises(
            CatalogUnavailable, match=r"read timeout.*check that a Hive metastore runs at .* field 'uri'"
        ):
            connect(connection_fields(there)).namespaces()
