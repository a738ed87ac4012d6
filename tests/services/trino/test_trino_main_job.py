"""The main job with engine Trino: from policy and Airflow connection to the records, on a real server."""

from __future__ import annotations

import json
import time

import pytest
from harness.services.base import Facts
from harness.services.s3 import file_io_properties
from harness.tables import data_files, rows_digest
from pyiceberg.catalog.rest import RestCatalog
from trino_server import Server, small_files

from airflow_provider_floe.airflow_environment import open_engines
from airflow_provider_floe.catalogs.base import ConnectionFields
from airflow_provider_floe.catalogs.client import connect
from airflow_provider_floe.health.report import TableId
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.request import RunRequest
from airflow_provider_floe.maintenance.run import run
from airflow_provider_floe.maintenance.settings import Settings
from airflow_provider_floe.planning.model import Disposition, RunMode
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.stores.open import open_store
from airflow_provider_floe.stores.protocols import OperationStatus
from airflow_provider_floe.tables import Operation, TableRef

pytestmark = pytest.mark.services


@pytest.fixture
def env(server: Server, services: dict[str, Facts], monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Policies call the catalog ``prod`` where nothing is held back, and ``held`` where the server has its minimum."""
    extra = {"floe_catalogs": {"prod": "lake", "held": "guarded"}, "catalog": "lake"}
    place = {"host": server.facts["host"], "port": int(server.facts["port"])}
    connection = {"conn_type": "trino", **place, "login": "airflow", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_TRINO_OF_TEST", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW__FLOE__TRINO_CONN_ID", "trino_of_test")
    fields = {"catalog_kind": "rest", "uri": services["rest"]["uri"], "properties": file_io_properties(services["s3"])}
    document = {
        "name": "everything",
        "tablePattern": "*.*.*",
        "engine": "trino",
        "rewriteDataFiles": {},
        "rewriteManifests": {},
        "expireSnapshots": {"retainLast": 1, "maxSnapshotAge": "PT1S"},
        "orphanCleanup": {},
    }
    return Environment(
        store=open_store("memory://"),
        policies=(Policy.model_validate(document),),
        catalogs={
            name: connect(ConnectionFields(name, extra={**fields, "catalog_name": name})) for name in ("prod", "held")
        },
        engines=open_engines(Settings()),
    )


def test_a_table_is_maintained_and_then_left_alone(env: Environment, catalog: RestCatalog, namespace: str) -> None:
    table = small_files(catalog, (namespace, "t"), 6)
    digest = rows_digest(table)
    time.sleep(1.1)
    request = RunRequest(
        run_id="conf-1", mode=RunMode.TABLE_CONF, table=TableId.of(TableRef("prod", (namespace,), "t")), context={}
    )
    first = run(env, request)
    table.refresh()
    assert not first.verdict.failed, first.verdict.failures
    done = {record.operation: record for record in first.records}
    assert {record.status for record in first.records} == {OperationStatus.SUCCESS}
    assert {Operation.REWRITE_DATA_FILES, Operation.EXPIRE_SNAPSHOTS} <= set(done)
    assert done[Operation.REWRITE_DATA_FILES].engine == "trino"
    assert done[Operation.REWRITE_DATA_FILES].remote_job
    assert rows_digest(table) == digest
    assert len(data_files(table)) == 1
    second = run(env, request.model_copy(update={"run_id": "conf-2", "force": True}))
    left = {item.operation: item.disposition for item in second.plan.items}
    assert left[Operation.REWRITE_DATA_FILES] is Disposition.NO_WORK
    assert left[Operation.REWRITE_MANIFESTS] is Disposition.NO_WORK


def test_retention_below_the_servers_minimum_never_reaches_it(
    env: Environment, catalog: RestCatalog, namespace: str
) -> None:
    small_files(catalog, (namespace, "t"), 3)
    time.sleep(1.1)
    table = TableId.of(TableRef("held", (namespace,), "t"))
    operations = (Operation.EXPIRE_SNAPSHOTS,)
    request = RunRequest(run_id="conf-1", mode=RunMode.TABLE_CONF, table=table, operations=operations, context={})
    found = run(env, request)
    (refused,) = (item for item in found.plan.items if item.operation in operations)
    assert refused.disposition is Disposition.REFUSED
    assert "maxSnapshotAge=0:00:01 is below the minimum retention of 7 days" in str(refused.reasons)
    assert found.records == ()
