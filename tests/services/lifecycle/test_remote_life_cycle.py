"""Tasks of a real Airflow on engines elsewhere: deferred while the query runs, and what becomes of it when they end."""

from __future__ import annotations

import pytest
from elsewhere_deployment import PATIENCE, Deployment
from harness.tables import rows_digest

from airflow_provider_floe.stores.protocols import OperationStatus

pytestmark = pytest.mark.services

KILLED = ("FAILED", "ADMINISTRATIVELY_KILLED")


def test_a_task_defers_and_its_query_is_the_only_one(deployment: Deployment) -> None:
    table = deployment.catalog.load_table((deployment.namespace, "ends"))
    digest = rows_digest(table)
    run_id, record = deployment.deferred_run("ends")
    ((query_id, state, _),) = deployment.queries(record.id)
    assert state not in ("FINISHED", "FAILED")
    path = deployment.task_path("floe_policy_ends", run_id)
    links = deployment.airflow.api("GET", f"{path}/links?map_index=0")["extra_links"]
    assert links["Engine job"].endswith(f"/ui/query.html?{query_id}")
    deployment.brake.release()

    assert deployment.airflow.wait_for_run("floe_policy_ends", run_id, PATIENCE) == "success"
    (record,) = deployment.records("ends")
    assert (record.status, record.remote_job) == (OperationStatus.SUCCESS, query_id)
    assert deployment.queries(record.id) == [[query_id, "FINISHED", None]]
    assert record.result is not None
    assert (record.result.files_rewritten, record.result.files_added) == (6, 1)
    assert rows_digest(table.refresh()) == digest
    log = deployment.airflow.task_log("floe_policy_ends", run_id, "execute", map_index=0)
    assert f"deferring while job {query_id}" in log
    assert f"job {query_id} is finished" in log


def test_marking_it_failed_at_once_cancels_the_query(deployment: Deployment) -> None:
    table = deployment.catalog.load_table((deployment.namespace, "failed"))
    before = table.metadata.current_snapshot_id
    run_id, record = deployment.deferred_run("failed")
    path = deployment.task_path("floe_policy_failed", run_id)
    deployment.airflow.api("PATCH", f"{path}/0", {"new_state": "failed"})
    deployment.wait_for_query(record.id, *KILLED)
    deployment.brake.drop()
    assert deployment.airflow.wait_for_run("floe_policy_failed", run_id, PATIENCE) == "failed"
    assert table.refresh().metadata.current_snapshot_id == before


def test_clearing_it_cancels_the_query_before_the_next_one(deployment: Deployment) -> None:
    table = deployment.catalog.load_table((deployment.namespace, "cleared"))
    digest = rows_digest(table)
    run_id, first = deployment.deferred_run("cleared")
    deployment.wait_for_the_trigger("cleared")
    body = {
        "dry_run": False,
        "only_failed": False,
        "dag_run_id": run_id,
        "task_ids": [["execute", 0]],
        "include_downstream": False,
    }
    deployment.airflow.api("POST", "/api/v2/dags/floe_policy_cleared/clearTaskInstances", body)
    deployment.wait_for_query(first.id, *KILLED)
    deployment.brake.drop()
    assert deployment.airflow.wait_for_run("floe_policy_cleared", run_id, PATIENCE) == "success"
    *_, second = deployment.records("cleared")
    assert (second.id == first.id, second.status) == (False, OperationStatus.SUCCESS)
    ((before, *_),), ((after, *_),) = deployment.queries(first.id), deployment.queries(second.id)
    with deployment.connect_trino() as connection:
        order = connection.cursor().execute(
            f'SELECT a."end" <= b.created FROM system.runtime.queries a, system.runtime.queries b '
            f"WHERE a.query_id = '{before}' AND b.query_id = '{after}'"
        )
        assert order.fetchall() == [[True]]
    assert rows_digest(table.refresh()) == digest


def test_an_engine_that_cannot_be_resumed_is_waited_for_in_the_task(deployment: Deployment) -> None:
    table = deployment.catalog.load_table((deployment.namespace, "spark"))
    digest = rows_digest(table)
    run_id = deployment.airflow.trigger("floe_policy_spark", {})
    assert deployment.airflow.wait_for_run("floe_policy_spark", run_id, PATIENCE) == "success"
    (record,) = deployment.records("spark")
    assert (record.status, record.engine) == (OperationStatus.SUCCESS, "spark")
    assert rows_digest(table.refresh()) == digest
    log = deployment.airflow.task_log("floe_policy_spark", run_id, "execute", map_index=0)
    assert "cannot be resumed: this task waits" in log
