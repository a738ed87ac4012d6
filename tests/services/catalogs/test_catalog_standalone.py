"""Two catalogs under one real Airflow: Hive over thrift, and a REST server that demands OAuth2, each with a policy."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from catalog_tables import Lake
from harness.airflow_standalone import Standalone
from harness.catalogs.base import CatalogUnderTest, Place
from harness.catalogs.registry import catalogs
from harness.catalogs.servers import HIVE, SEAWEEDFS
from harness.hive_client import hive_client_packages
from harness.tables import data_files, rows_digest
from pyiceberg.table import Table

from airflow_provider_floe.dag_factory import DAG_ID_PREFIX, TABLE_DAG_ID
from airflow_provider_floe.loader_files import write_loader_files
from airflow_provider_floe.stores.open import open_store
from airflow_provider_floe.stores.protocols import FloeStore, OperationRecord, OperationStatus
from airflow_provider_floe.tables import Operation, TableRef

NAMES = (HIVE.name, SEAWEEDFS.name)
"""Of catalogs, their connections and their policies."""
PATIENCE = 300.0
"""Seconds: a busy machine takes its time to start a task."""
FILES = 6


@dataclass(frozen=True)
class Deployment:
    """A running Airflow that looks after two catalogs.

    :ivar lakes: clients of the catalogs, each with the namespace that the policy governs.
    """

    airflow: Standalone
    lakes: dict[str, Lake]
    store: FloeStore

    def records(self, catalog: str, table: Table) -> list[OperationRecord]:
        """What Floe recorded of the table, oldest first."""
        *namespace, name = table.name()
        return self.store.operations(table=TableRef(catalog, tuple(namespace), name))[::-1]


@pytest.fixture(scope="module")
def deployment(
    opened: Callable[[CatalogUnderTest], Place], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    home = tmp_path_factory.mktemp("catalogs") / "airflow"
    policies = home / "dags" / "policies"
    policies.mkdir(parents=True)
    write_loader_files(home / "dags")
    lakes, connections = {}, {}
    for catalog in (one for one in catalogs() if one.name in NAMES):
        place = opened(catalog)
        lake = Lake.of(place, f"airflow{uuid4().hex[:8]}")
        lake.catalog.create_namespace((lake.namespace,))
        lakes[catalog.name] = lake
        connections[f"AIRFLOW_CONN_{catalog.name.upper()}"] = json.dumps(place.connection)
        document = {
            "name": catalog.name,
            "tablePattern": f"{catalog.name}.{lake.namespace}.*",
            "engine": "local",
            "rewriteDataFiles": {},
        }
        (policies / f"{catalog.name}.yaml").write_text(yaml.safe_dump(document))
    airflow = Standalone(
        Path(sys.executable),
        home,
        {
            **connections,
            "PYTHONPATH": str(hive_client_packages()),
            "AIRFLOW__FLOE__CATALOGS": ",".join(NAMES),
            # Retries are for an Airflow that cannot start a task in time on a busy machine
            "AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "3",
            "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "2",
        },
    )
    airflow.start(PATIENCE)
    try:
        dags = (TABLE_DAG_ID, *(f"{DAG_ID_PREFIX}{name}" for name in NAMES))
        airflow.wait_for_dags(dags, PATIENCE)
        for dag_id in dags:
            airflow.set_paused(dag_id, False)
        store = open_store(f"sqlite:///{home}/floe.db")
        yield Deployment(airflow, lakes, store)
        store.close()
    finally:
        airflow.stop()


def test_the_policies_of_both_catalogs_run_side_by_side(deployment: Deployment) -> None:
    airflow = deployment.airflow
    tables = {name: lake.small_files(files=FILES) for name, lake in deployment.lakes.items()}
    digests = {name: rows_digest(table) for name, table in tables.items()}
    runs = {name: airflow.trigger(f"{DAG_ID_PREFIX}{name}", {}) for name in NAMES}
    ended = {name: airflow.wait_for_run(f"{DAG_ID_PREFIX}{name}", run_id, PATIENCE) for name, run_id in runs.items()}
    assert ended == dict.fromkeys(NAMES, "success")
    for name, table in tables.items():
        table.refresh()
        assert len(data_files(table)) == 1
        assert rows_digest(table) == digests[name]
        assert_rewritten(deployment, name, table, f"{DAG_ID_PREFIX}{name}", runs[name])
        assert deployment.store.latest_report(TableRef(name, (deployment.lakes[name].namespace,), "events")) is not None
    assert airflow.import_errors() == []


@pytest.mark.parametrize("name", NAMES)
def test_a_table_conf_maintains_one_table(deployment: Deployment, name: str) -> None:
    lake, airflow = deployment.lakes[name], deployment.airflow
    asked, other = lake.small_files("asked", FILES), lake.small_files("other", FILES)
    digest = rows_digest(asked)
    run_id = airflow.trigger(TABLE_DAG_ID, {"catalog": name, "namespace": lake.namespace, "table": "asked"})
    assert airflow.wait_for_run(TABLE_DAG_ID, run_id, PATIENCE) == "success"
    asked.refresh()
    assert len(data_files(asked)) == 1
    assert rows_digest(asked) == digest
    assert_rewritten(deployment, name, asked, TABLE_DAG_ID, run_id)
    assert len(data_files(other.refresh())) == FILES
    assert deployment.records(name, other) == []


def assert_rewritten(deployment: Deployment, name: str, table: Table, dag_id: str, run_id: str) -> None:
    """The store has one rewrite of the table's files, by that run."""
    (record,) = [one for one in deployment.records(name, table) if one.status is OperationStatus.SUCCESS]
    assert (record.operation, record.engine, record.policy) == (Operation.REWRITE_DATA_FILES, "local", name)
    assert (record.context["dag_id"], record.run_id) == (dag_id, run_id)
    assert record.result is not None
    assert (record.result.files_rewritten, record.result.files_added) == (FILES, 1)
