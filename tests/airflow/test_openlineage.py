"""What OpenLineage receives from real DAG runs, through its file transport."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness.tables import data_files

from airflow_provider_floe.dag_factory import table_maintenance_dag
from airflow_provider_floe.operators.lineage import LineageMixin

RUN = """
import sys
from airflow.models.dagbundle import DagBundleModel
from airflow.utils.session import create_session
try:
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
except ImportError:
    from airflow.models.dagbag import DagBag, sync_bag_to_db
from airflow_provider_floe.dag_factory import FloePolicyDag

dag = FloePolicyDag(sys.argv[1])
with create_session() as session:
    session.merge(DagBundleModel(name="test_bundle"))
bag = DagBag(dag_folder="/dev/null")
bag.bag_dag(dag)
sync_bag_to_db(bag, bundle_name="test_bundle", bundle_version="1")
print("state", dag.test().state)
"""


@pytest.fixture
def emitted(floe, airflow_db, tmp_path: Path) -> Callable[..., tuple[str, list[dict[str, Any]]]]:
    """Runs a DAG in a process of its own; answers with its state and the events that have Floe's facet."""
    log = tmp_path / "lineage.jsonl"

    def run(policy: str) -> tuple[str, list[dict[str, Any]]]:
        transport = json.dumps({"type": "file", "log_file_path": str(log), "append": True})
        env = {**os.environ, "AIRFLOW__OPENLINEAGE__TRANSPORT": transport}
        done = subprocess.run([sys.executable, "-c", RUN, policy], env=env, capture_output=True, text=True, check=False)
        [state] = re.findall(r"^state (\w+)$", done.stdout, re.MULTILINE) or [done.stderr[-2000:]]
        events = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return state, [event for event in events if "floe_maintenance" in event.get("run", {}).get("facets", {})]

    return run


def test_a_mapped_task_tells_what_it_changed(floe, emitted):
    floe.write("compact")
    before = floe.table().metadata.current_snapshot_id
    state, events = emitted("compact")
    assert state == "success"
    [event] = events
    assert event["eventType"] == "COMPLETE"
    assert event["job"]["name"] == "floe_policy_compact.execute"
    [dataset] = event["outputs"]
    table = floe.table()
    assert (dataset["namespace"], dataset["name"]) == ("file", table.location().removeprefix("file://"))
    [link] = dataset["facets"]["symlinks"]["identifiers"]
    assert (link["namespace"], link["name"], link["type"]) == ("iceberg://lake", "db.events", "TABLE")
    snapshot = table.metadata.current_snapshot_id
    assert snapshot != before
    assert dataset["facets"]["version"]["datasetVersion"] == str(snapshot)
    assert dataset["outputFacets"]["outputStatistics"]["fileCount"] == 1
    facet = {entry["operation"]: entry for entry in event["run"]["facets"]["floe_maintenance"]["operations"]}
    rewrite = facet["rewrite_data_files"]
    assert (rewrite["outcome"], rewrite["files_rewritten"], rewrite["files_added"]) == ("SUCCESS", 8, 1)
    assert rewrite["bytes_rewritten"] > rewrite["bytes_added"] > 0
    records = {record.operation.value: record for record in floe.store().operations()}
    assert rewrite["operation_id"] == records["rewrite_data_files"].id
    assert rewrite["plan_id"] == records["rewrite_data_files"].plan_id
    assert facet["expire_snapshots"]["snapshots_expired"] > 0


@pytest.fixture
def asked(floe, run_dag, monkeypatch):
    """Runs the DAG of one table in this process; answers with the run's state and what its task would tell."""
    floe.set("AIRFLOW__OPENLINEAGE__TRANSPORT", json.dumps({"type": "console"}))
    tasks: list[LineageMixin] = []
    observed = LineageMixin.observed
    monkeypatch.setattr(
        LineageMixin, "observed", lambda self, env, events: tasks.append(self) or observed(self, env, events)
    )

    def run():
        conf = {"catalog": "lake", "namespace": "db", "table": "events"}
        state = run_dag(table_maintenance_dag(), conf).state
        return state, tasks[-1].get_openlineage_facets_on_failure(None)

    return run


def test_a_failed_run_tells_what_failed_and_claims_no_output(floe, asked):
    floe.write("compact", expireSnapshots=None)
    Path(data_files(floe.table())[0].file_path.removeprefix("file://")).unlink()
    state, lineage = asked()
    assert state == "failed"
    assert lineage.outputs == []
    [entry] = lineage.run_facets["floe_maintenance"].operations
    assert (entry["operation"], entry["outcome"], entry["changed"]) == ("rewrite_data_files", "FAILED", False)


def test_a_table_that_cannot_be_located_is_named_by_its_catalog(floe, asked, monkeypatch):
    monkeypatch.setattr("airflow_provider_floe.operators.lineage._locations", lambda env, tables: {})
    floe.write("compact")
    _, lineage = asked()
    assert [(one.namespace, one.name) for one in lineage.outputs] == [("iceberg://lake", "db.events")]


def test_nothing_is_told_when_events_are_off_or_the_provider_is_not_there(floe, asked, monkeypatch):
    floe.write("compact")
    floe.set("AIRFLOW__FLOE__EMIT_EVENTS", "False")
    assert asked() == ("success", None)
    floe.set("AIRFLOW__FLOE__EMIT_EVENTS", "True")
    monkeypatch.setattr("airflow_provider_floe.operators.lineage.find_spec", lambda name: None)
    assert asked() == ("success", None)


@pytest.mark.parametrize(
    ("location", "named"),
    [
        ("s3://lake/warehouse/db/events/", ("s3://lake", "warehouse/db/events")),
        ("abfss://c@account.dfs.core.windows.net/db/t", ("abfss://c@account.dfs.core.windows.net", "db/t")),
        ("file:///data/db/t", ("file", "/data/db/t")),
        ("/data/db/t", ("file", "/data/db/t")),
    ],
)
def test_a_table_is_named_by_its_location(location, named):
    from airflow_provider_floe.lineage import storage_name

    assert storage_name(location) == named
