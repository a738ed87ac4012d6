"""What Polaris, Lakekeeper and Gravitino do that other REST catalogs do not, at the gateways that imitate them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
import requests
from catalog_tables import Lake, maintain
from harness.catalogs.base import Place, changed, connection_fields
from harness.catalogs.gateways import (
    VENDING,
    WAREHOUSE,
    gravitino_connection,
    gravitino_gateway,
    lakekeeper_connection,
    lakekeeper_gateway,
    polaris_connection,
    polaris_gateway,
)
from harness.gateways.base import Gateway
from harness.gateways.gravitino import GravitinoGateway
from harness.gateways.lakekeeper import LakekeeperGateway, read_only
from harness.gateways.polaris import PolarisGateway, rate_exceeded
from harness.tables import data_files, rows_digest

from airflow_provider_floe.catalogs.client import connect
from airflow_provider_floe.catalogs.rest_transport import Patience
from airflow_provider_floe.errors import CatalogUnavailable, TableUnreadable
from airflow_provider_floe.stores.protocols import OperationStatus
from airflow_provider_floe.tables import Operation, TableRef

Opened = tuple[Any, dict[str, Any]]
"""A gateway, and the connection to it with keys of the storage."""


@pytest.fixture(scope="module")
def polaris() -> Iterator[tuple[PolarisGateway, dict[str, Any]]]:
    with polaris_gateway(paged=True) as (gateway, store):
        yield gateway, polaris_connection(gateway, store)


@pytest.fixture(scope="module")
def lakekeeper() -> Iterator[tuple[LakekeeperGateway, dict[str, Any]]]:
    with lakekeeper_gateway() as (gateway, store):
        yield gateway, lakekeeper_connection(gateway, store)


@pytest.fixture(scope="module")
def gravitino() -> Iterator[tuple[GravitinoGateway, dict[str, Any]]]:
    with gravitino_gateway() as (gateway, store):
        yield gateway, gravitino_connection(gateway, store)


@pytest.fixture(params=["polaris", "lakekeeper", "gravitino"])
def product(request: pytest.FixtureRequest) -> Opened:
    found: Opened = request.getfixturevalue(request.param)
    return found


def lake_of(connection: Mapping[str, Any]) -> Lake:
    """An empty namespace of the test's own."""
    found = Lake.of(Place(connection), f"g{uuid4().hex[:10]}")
    found.catalog.create_namespace((found.namespace,))
    return found


def without_keys(connection: Mapping[str, Any], **extra: Any) -> dict[str, Any]:
    """The connection of one who has no keys of the storage."""
    place = connection["extra"]["properties"]
    kept = {key: place[key] for key in ("s3.endpoint", "s3.region")}
    return changed(connection, extra={"properties": kept, **extra})


def compact(lake: Lake, name: str = "events") -> None:
    table = lake.small_files(name, files=3)
    digest = rows_digest(table)
    result = maintain(lake.environment(), table, Operation.REWRITE_DATA_FILES)
    assert not result.verdict.failed, result.verdict.failures
    assert len(data_files(table)) == 1
    assert rows_digest(table) == digest


def test_credentials_that_the_catalog_vends_open_the_storage(product: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    _, connection = product
    lake = lake_of(without_keys(connection, warehouse=VENDING))
    compact(lake)
    table = lake.client.load(TableRef("lake", (lake.namespace,), "events"))
    assert table.io.properties["s3.session-token"] == "vended-session-token"


@pytest.mark.parametrize("kind", ["polaris", "gravitino"])
def test_a_catalog_without_credentials_to_vend_refuses_to_be_asked(kind: str, request: pytest.FixtureRequest) -> None:
    _, connection = request.getfixturevalue(kind)
    own = lake_of(connection)
    own.small_files(files=1)
    asks = connect(connection_fields(without_keys(connection)))
    with pytest.raises(CatalogUnavailable, match=r"'access_delegation' to none.*in 'properties'"):
        asks.load(TableRef("lake", (own.namespace,), "events"))


def test_pages_of_names_are_followed(product: Opened) -> None:
    gateway, connection = product
    properties = {**connection["extra"]["properties"], "rest-page-size": "2"}
    lake = lake_of(changed(connection, extra={"properties": properties}))
    names = {"a", "b", "c", "d", "e"}
    for name in names:
        lake.small_files(name, 0)
    gateway.requests.clear()
    assert {table.name for table in lake.client.tables([(lake.namespace,)])} == names
    pages = [path for _, path in gateway.requests if path.partition("?")[0].endswith("/tables")]
    assert len(pages) == 3


def test_polaris_limits_the_rate_of_requests_without_a_time_to_wait(
    polaris: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float | None] = []
    monkeypatch.setattr(Patience, "sleep", lambda self, response: waited.append(self.get_retry_after(response)))
    gateway, connection = polaris
    lake = lake_of(connection)
    gateway.answers = [
        rate_exceeded(method="GET", path="/tables/events", times=2),
        rate_exceeded(method="POST", path="/tables/events", times=1),
    ]
    compact(lake)
    assert len(waited) == 3
    gateway.answers = [rate_exceeded(times=99)]
    with pytest.raises(CatalogUnavailable, match="is busy: try again later"):
        lake.client.namespaces()
    gateway.answers = []


def test_polaris_realm_is_asked_for_by_a_header(polaris: Opened) -> None:
    _, connection = polaris
    properties = connection["extra"]["properties"]

    def realm(name: str) -> dict[str, Any]:
        return changed(connection, extra={"properties": {**properties, "header.Polaris-Realm": name}})

    assert not list(lake_of(realm("POLARIS")).client.tables([("nothing",)]))
    with pytest.raises(CatalogUnavailable, match=r"correct 'header\.Polaris-Realm' in field 'properties'"):
        connect(connection_fields(realm("ELSEWHERE"))).namespaces()


def test_polaris_says_which_grant_a_principal_lacks(polaris: Opened) -> None:
    _, connection = polaris
    lake = lake_of(connection)
    table = lake.small_files(files=2)
    newcomer = changed(connection, login="newcomer-client", password="newcomer-secret")
    client = connect(connection_fields(newcomer))
    with pytest.raises(
        TableUnreadable, match=r"may not load it .*Principal 'newcomer'.*not authorized for op LOAD_TABLE"
    ):
        client.load(TableRef("lake", (lake.namespace,), "events"))
    reader = connect(connection_fields(changed(connection, login="reader-client", password="reader-secret")))
    before = {file.file_path for file in data_files(table)}
    (record,) = maintain(
        replace(lake.environment(), catalogs={"lake": reader}), table, Operation.REWRITE_DATA_FILES
    ).records
    assert record.status is OperationStatus.FAILED
    assert "Principal 'reader'" in str(record.error)
    assert "not authorized for op UPDATE_TABLE" in str(record.error)
    assert {file.file_path for file in data_files(table)} == before


def test_nothing_is_at_polaris_outside_of_its_catalogs(polaris: Opened) -> None:
    gateway, connection = polaris
    client = {"client_id": connection["login"], "client_secret": connection["password"]}
    form = {"grant_type": "client_credentials", "scope": "PRINCIPAL_ROLE:ALL", **client}
    answer = requests.post(f"{gateway.catalog_uri}/v1/oauth/tokens", data=form, timeout=60).json()
    bearer = {"Authorization": f"Bearer {answer['access_token']}"}

    def status(path: str, headers: Mapping[str, str] = bearer) -> int:
        return requests.get(f"{gateway.catalog_uri}/v1/{path}", headers=headers, timeout=60).status_code

    assert status(f"{WAREHOUSE}/namespaces") == 200
    assert status("namespaces") == status("other/namespaces") == 404
    assert status("config") == 400
    assert status(f"{WAREHOUSE}/namespaces", {}) == status("config", {"Authorization": "Bearer None"}) == 401


def test_lakekeeper_leaves_the_storage_to_those_who_have_keys(lakekeeper: Opened) -> None:
    gateway, connection = lakekeeper
    lake = lake_of(connection)
    compact(lake)
    assert {request.headers["X-Iceberg-Access-Delegation"] for request in gateway.seen[-5:]} == {"client-managed"}
    loaded = lake.client.load(TableRef("lake", (lake.namespace,), "events"))
    assert "s3.signer" not in loaded.io.properties


def test_a_lakekeeper_warehouse_that_only_signs_is_refused_with_the_fix(lakekeeper: Opened) -> None:
    _, connection = lakekeeper
    own = lake_of(connection)
    own.small_files(files=1)
    asks = connect(connection_fields(without_keys(connection)))
    with pytest.raises(CatalogUnavailable, match=r"remote signing.*'access_delegation' to none.*in 'properties'"):
        asks.load(TableRef("lake", (own.namespace,), "events"))


def test_keys_of_ones_own_are_used_where_the_catalog_would_sign(lakekeeper: Opened) -> None:
    _, connection = lakekeeper
    unknown = changed(connection, extra={"catalog_kind": "rest"})
    lake = lake_of(unknown)
    compact(lake)
    loaded = lake.client.load(TableRef("lake", (lake.namespace,), "events"))
    assert not [key for key in loaded.io.properties if "sign" in key or key == "py-io-impl"]


def test_a_lakekeeper_warehouse_may_be_named_with_its_project(lakekeeper: Opened) -> None:
    gateway, connection = lakekeeper
    named = changed(connection, extra={"warehouse": f"{gateway.project}/{WAREHOUSE}"})
    compact(lake_of(named))
    elsewhere = changed(connection, extra={"warehouse": f"{uuid4()}/{WAREHOUSE}"})
    with pytest.raises(CatalogUnavailable, match=f"correct field 'warehouse': .*{WAREHOUSE}"):
        connect(connection_fields(elsewhere)).namespaces()


def test_a_lakekeeper_in_maintenance_is_waited_for_and_nothing_is_lost(
    lakekeeper: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float | None] = []
    monkeypatch.setattr(Patience, "sleep", lambda self, response: waited.append(self.get_retry_after(response)))
    gateway, connection = lakekeeper
    lake = lake_of(connection)
    table = lake.small_files(files=3)
    digest = rows_digest(table)
    env = lake.environment()
    gateway.answers = [read_only(path="/tables/events", times=99)]
    (record,) = maintain(env, table, Operation.REWRITE_DATA_FILES).records
    gateway.answers = []
    assert record.status is not OperationStatus.SUCCESS
    assert "maintenance" in str(record.error) or "busy" in str(record.error)
    assert set(waited) == {60}
    assert len(data_files(table)) == 3
    assert rows_digest(table) == digest


@pytest.mark.parametrize("kind", ["polaris", "lakekeeper"])
def test_a_token_that_is_not_valid_any_more_is_replaced(kind: str, request: pytest.FixtureRequest) -> None:
    gateway, connection = request.getfixturevalue(kind)
    lake = lake_of(connection)
    tokens = gateway.tokens if kind == "polaris" else gateway.provider.tokens
    old = set(tokens)
    tokens.clear()
    compact(lake)
    assert tokens
    assert not old & set(tokens)


def test_gravitino_serves_a_default_catalog_without_prefix_and_asks_for_no_sign_in(gravitino: Opened) -> None:
    gateway, connection = gravitino
    gateway.seen.clear()
    compact(lake_of(changed(connection, without=("warehouse",))))
    assert {request.headers.get("Authorization") for request in gateway.seen} == {None}
    assert not [request.path for request in gateway.seen if f"/v1/{WAREHOUSE}/" in request.path]
    compact(lake_of(connection))
    assert [request.path for request in gateway.seen if f"/v1/{WAREHOUSE}/" in request.path]


def test_gravitino_takes_a_name_but_no_token(gravitino: Opened) -> None:
    gateway, _ = gravitino
    assert isinstance(gateway, Gateway)
    uri = f"{gateway.catalog_uri}/v1/namespaces"
    assert requests.get(uri, auth=("anyone", ""), timeout=60).status_code == 200
    refused = requests.get(uri, headers={"Authorization": "Bearer None"}, timeout=60)
    assert refused.status_code == 401
    assert refused.json()["error"]["message"] == "The provided credentials did not support"
    signing = requests.post(
        f"{uri}/n/tables", json={"name": "t"}, headers={"X-Iceberg-Access-Delegation": "remote-signing"}, timeout=60
    )
    assert signing.status_code == 406
