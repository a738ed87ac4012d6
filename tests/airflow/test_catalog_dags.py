"""Each real catalog through Airflow: a policy's DAG, and a run of one table by its conf."""

from __future__ import annotations

import json
from collections.abc import Iterator
from uuid import uuid4

import pytest
from dag_runs import states
from harness.catalogs.base import NAME, CatalogUnderTest, Place, connection_fields
from harness.catalogs.registry import catalogs
from harness.tables import SCHEMA, data_files, rows, rows_digest
from pyiceberg.table import Table

from airflow_provider_floe.catalogs.client import PyicebergCatalog, connect
from airflow_provider_floe.dag_factory import FloePolicyDag, table_maintenance_dag
from airflow_provider_floe.tables import Operation


@pytest.fixture(params=catalogs(), ids=lambda catalog: catalog.name)
def under_test(request: pytest.FixtureRequest) -> CatalogUnderTest:
    found: CatalogUnderTest = request.param
    return found


@pytest.fixture
def place(under_test: CatalogUnderTest) -> Iterator[Place]:
    with under_test.open() as found:
        yield found


@pytest.fixture
def tables(place: Place, floe) -> list[Table]:
    """Two tables of small files in a namespace of their own; the connection ``lake`` leads to their catalog."""
    floe.set("AIRFLOW_CONN_LAKE", json.dumps(place.connection))
    client = connect(connection_fields(place.connection))
    assert isinstance(client, PyicebergCatalog)
    namespace = f"dag{uuid4().hex[:8]}"
    client.catalog.create_namespace((namespace,))
    found = []
    for name in ("first", "second"):
        table = client.catalog.create_table((namespace, name), schema=SCHEMA, properties={"format-version": "2"})
        for number in range(4):
            table.append(rows(number * 10, 10))
        found.append(table)
    return found


def test_a_policys_dag_and_a_run_of_one_table(tables: list[Table], under_test: CatalogUnderTest, floe, run_dag) -> None:
    first, second = tables
    namespace = first.name()[0]
    digest = rows_digest(first)
    floe.write("compact", tablePattern=f"{NAME}.{namespace}.first")
    run = run_dag(FloePolicyDag("compact"))
    assert run.state == "success"
    assert states(run)["verdict"] == ["success"]
    assert len(data_files(first.refresh())) == 1
    assert rows_digest(first) == digest
    done = {record.operation for record in floe.store().operations() if record.status == "SUCCESS"}
    assert done == {Operation.REWRITE_DATA_FILES, Operation.EXPIRE_SNAPSHOTS} - set(under_test.refuses)
    assert len(data_files(second.refresh())) == 4

    floe.write("compact", tablePattern=f"{NAME}.{namespace}.*")
    conf = {"catalog": NAME, "namespace": namespace, "table": "second", "operations": ["rewrite_data_files"]}
    run = run_dag(table_maintenance_dag(), conf)
    assert run.state == "success"
    assert len(data_files(second.refresh())) == 1
    assert rows_digest(second) == digest
