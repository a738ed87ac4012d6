"""What the README promises, under a real `airflow standalone`: workers without database access, real processes."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from deployment import Deployment
from harness.airflow_standalone import wait_until
from harness.oracle import oracle_digest
from measure import unreferenced_files

from airflow_provider_floe.planning.model import Disposition, Plan
from airflow_provider_floe.stores.protocols import OperationRecord, OperationStatus
from airflow_provider_floe.tables import Operation, TableRef

pytestmark = pytest.mark.standalone

POLICY_DAGS = ("floe_policy_web", "floe_policy_sales", "floe_policy_audit")


@pytest.fixture(scope="module")
def first_runs(deployment: Deployment) -> dict[str, dict[str, Any]]:
    """The first run of each DAG: three that the scheduler creates, and one started by the API."""
    airflow = deployment.airflow
    run_id = airflow.trigger("floe_maintenance", {"catalog": "lake", "namespace": "web", "table": "sessions"})
    runs = {"floe_maintenance": {"dag_run_id": run_id, "state": airflow.wait_for_run("floe_maintenance", run_id)}}
    for dag_id in POLICY_DAGS:
        runs[dag_id] = airflow.wait_for_scheduled_run(dag_id)
    return runs


def plan_of(deployment: Deployment, dag_id: str, run_id: str) -> Plan:
    return deployment.store.plan(deployment.airflow.xcom(dag_id, run_id, "plan", "plan_id"))


def records(deployment: Deployment, table: str) -> list[OperationRecord]:
    """Newest first."""
    return deployment.store.operations(table=TableRef.parse(table))


def test_the_wheel_brings_the_provider(python: Path, deployment: Deployment) -> None:
    where = subprocess.run(
        [python, "-c", "import airflow_provider_floe as floe; print(floe.__file__)"],
        cwd=deployment.airflow.home,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert str(python.parents[1]) in where
    assert "airflow-provider-floe" in deployment.airflow.cli("providers", "get", "airflow-provider-floe").stdout
    assert deployment.airflow.import_errors() == []


def test_scheduled_and_triggered_runs_succeed(first_runs: dict[str, dict[str, Any]]) -> None:
    states = {dag_id: run["state"] for dag_id, run in first_runs.items()}
    assert states == {
        "floe_maintenance": "success",
        "floe_policy_web": "success",
        "floe_policy_audit": "success",
        "floe_policy_sales": "failed",  # one of its tables is broken
    }


def test_every_table_is_cured_and_keeps_its_rows(deployment: Deployment, first_runs: dict[str, Any]) -> None:
    before, after = deployment.before, deployment.states()
    assert {name: state.digest for name, state in after.items()} == {n: state.digest for n, state in before.items()}
    assert after["web.clicks"].data_files < before["web.clicks"].data_files / 10
    assert after["web.sessions"].snapshots == 3
    assert after["sales.orders"].delete_files == 0
    assert before["sales.returns"].orphans == 9
    assert after["sales.returns"].orphans == 2  # the young ones
    assert after["ops.audit.events"].manifests < 10
    for untouched in ("sales.customers", "web.pages", "scratch.tmp"):
        assert after[untouched] == before[untouched]


def test_the_broken_table_fails_alone_and_is_named(deployment: Deployment, first_runs: dict[str, Any]) -> None:
    run_id = first_runs["floe_policy_sales"]["dag_run_id"]
    tasks = deployment.airflow.tasks("floe_policy_sales", run_id)
    failed = [task for task in tasks if task["state"] != "success"]
    assert len(failed) == 1
    log = deployment.airflow.task_log("floe_policy_sales", run_id, failed[0]["task_id"])
    assert "lake.sales.broken" in log
    assert {record.status for record in records(deployment, "lake.sales.orders")} == {OperationStatus.SUCCESS}
    assert records(deployment, "lake.sales.broken") == []


def test_the_store_shows_reports_plans_and_records(deployment: Deployment, first_runs: dict[str, Any]) -> None:
    plan = plan_of(deployment, "floe_policy_web", first_runs["floe_policy_web"]["dag_run_id"])
    chosen = {(str(item.table.ref()), item.operation) for item in plan.to_run}
    assert chosen == {("lake.web.clicks", Operation.REWRITE_DATA_FILES)}
    assert all(item.reasons for item in plan.items)
    (record,) = records(deployment, "lake.web.clicks")
    assert record.plan_id == plan.id
    assert record.policy == "web"
    assert record.context["dag_id"] == "floe_policy_web"
    assert record.result is not None
    assert record.result.files_rewritten == deployment.before["web.clicks"].data_files
    report = deployment.store.latest_report(TableRef.parse("lake.web.clicks"))
    assert report is not None
    assert report.metrics.data_file_count == deployment.before["web.clicks"].data_files


def test_the_next_run_does_nothing_and_says_why(deployment: Deployment, first_runs: dict[str, Any]) -> None:
    settled = deployment.states()
    for dag_id in POLICY_DAGS:
        run_id = deployment.airflow.trigger(dag_id, {})
        deployment.airflow.wait_for_run(dag_id, run_id)
        plan = plan_of(deployment, dag_id, run_id)
        assert plan.to_run == ()
        for item in plan.items:
            assert item.disposition in (Disposition.NO_WORK, Disposition.NOT_GOVERNED)
            assert all(item.reasons)
    assert deployment.states() == settled


@pytest.mark.parametrize(
    ("conf", "said"),
    [
        ({"catalog": "lake", "namespace": "web", "table": "clicks", "tabel": "x"}, ("unknown key 'tabel'", "'table'")),
        ({"catalog": "lake", "namespace": "scratch", "table": "tmp"}, ("PolicyNotFound", "lake.scratch.tmp")),
        ({"catalog": "lake", "namespace": ["ops", "audit"], "table": "nope"}, ("TableNotFound", "lake.ops.audit.nope")),
        (
            {"catalog": "lake", "namespace": "scratch", "table": "idle"},
            ("PolicyDisabled", "lake.scratch.idle is disabled"),
        ),
    ],
    ids=["unknown key", "no policy", "missing table", "disabled policy"],
)
def test_a_wrong_table_conf_fails_clearly_before_anything_is_touched(
    deployment: Deployment, first_runs: dict[str, Any], conf: dict[str, Any], said: tuple[str, ...]
) -> None:
    settled, airflow = deployment.states(), deployment.airflow
    run_id = airflow.trigger("floe_maintenance", conf)
    assert airflow.wait_for_run("floe_maintenance", run_id) == "failed"
    (task,) = airflow.tasks("floe_maintenance", run_id)
    log = airflow.task_log("floe_maintenance", run_id, task["task_id"])
    assert [text for text in said if text not in log] == []
    assert deployment.states() == settled
    left = {record.status for record in deployment.store.operations(limit=10_000) if record.run_id == run_id}
    assert left <= {OperationStatus.NO_POLICY, OperationStatus.SKIPPED}


@pytest.mark.parametrize("victim", ["killed_task", "killed_supervisor"])
def test_killing_it_in_the_middle_of_a_rewrite_loses_nothing(deployment: Deployment, victim: str) -> None:
    airflow, table = deployment.airflow, deployment.slow.load_table(f"db.{victim}")
    before = oracle_digest(table.metadata_location)
    brake = deployment.brakes / victim
    brake.touch()
    conf = {"catalog": "slow", "namespace": "db", "table": victim}
    first = airflow.trigger("floe_maintenance", conf)
    held = brake.with_suffix(".held")
    pid, parent = map(int, wait_until("the rewrite", lambda: held.exists() and held.read_text().split(), timeout=120))
    os.kill(pid if victim == "killed_task" else parent, signal.SIGKILL)
    assert airflow.wait_for_run("floe_maintenance", first) == "failed"
    assert oracle_digest(table.refresh().metadata_location) == before

    second = airflow.trigger("floe_maintenance", conf)
    assert airflow.wait_for_run("floe_maintenance", second) == "success"
    newest, oldest = records(deployment, f"slow.db.{victim}")
    assert (oldest.run_id, oldest.status) == (first, OperationStatus.INTERRUPTED)
    assert "the rows are as they were" in str(oldest.error)
    assert (newest.run_id, newest.status) == (second, OperationStatus.SUCCESS)

    held.unlink()  # whoever still waits goes on, and finds that the lease is another's
    wait_until("the end of the first run's process", lambda: not is_running(pid), timeout=60)
    table.refresh()
    assert oracle_digest(table.metadata_location) == before
    assert table.inspect.files().num_rows == 1
    assert unreferenced_files(table) == set()
    assert deployment.store.operation(oldest.id).status is OperationStatus.INTERRUPTED


def test_tasks_share_the_file_groups_of_a_table(deployment: Deployment) -> None:
    airflow, table = deployment.airflow, deployment.slow.load_table("wide.shared")
    before, snapshots = oracle_digest(table.metadata_location), len(table.metadata.snapshots)
    brake = deployment.brakes / "shared"
    brake.touch()
    run_id = airflow.trigger("shared_groups", {})
    held = brake.with_suffix(".held")
    wait_until("the first group", held.exists, timeout=120)

    def others_are_done() -> list[str]:
        (record,) = records(deployment, "slow.wide.shared")
        groups = deployment.store.file_groups(record.id)
        done = [group.worker for group in groups if group.written is not None]
        return [str(worker) for worker in done] if len(done) == len(groups) - 1 else []

    workers = wait_until("the other groups", others_are_done, timeout=300)
    held.unlink()
    assert airflow.wait_for_run("shared_groups", run_id) == "success"
    tasks = [task for task in airflow.tasks("shared_groups", run_id) if task["task_id"] == "execute"]
    assert [task["state"] for task in tasks] == ["success"] * 3
    assert len(workers) == 4
    (record,) = records(deployment, "slow.wide.shared")
    assert record.status is OperationStatus.SUCCESS
    table.refresh()
    assert oracle_digest(table.metadata_location) == before
    assert len(table.metadata.snapshots) == snapshots + 1
    assert table.inspect.files().num_rows == 5
    assert unreferenced_files(table) == set()


def is_running(pid: int) -> bool:
    """Whether the process does anything; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
