"""Workers that die, or give up their slot, while a batch runs on Livy: it is waited for or cancelled, never doubled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest
from harness.tables import SCHEMA, append_files, data_files, rows_digest
from livy_spark import Livy, applications, wait_for
from livy_worker import TASK, environment, rewriting
from pyiceberg.table import Table

from airflow_provider_floe.engines.spark.livy import LivyEngine
from airflow_provider_floe.maintenance.assess import assess
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.execute import execute
from airflow_provider_floe.maintenance.plan import plan
from airflow_provider_floe.maintenance.request import Waiting
from airflow_provider_floe.maintenance.run import run
from airflow_provider_floe.maintenance.settle import settle_all
from airflow_provider_floe.maintenance.watch import give_up, look
from airflow_provider_floe.stores.protocols import OperationRecord, OperationStatus

pytestmark = pytest.mark.services

WORKER = Path(__file__).with_name("livy_worker.py")


def small(livy: Livy, *name: str) -> Table:
    return append_files(livy.catalog.create_table(name, schema=SCHEMA), 3)


@pytest.fixture(scope="module")
def engine(livy: Livy) -> LivyEngine:
    """One for all tests: it asks but once what Spark has."""
    return livy.engine()


@pytest.fixture
def env(engine: LivyEngine, tmp_path: Path) -> Environment:
    return environment(store_url(tmp_path), engine)


def store_url(folder: Path) -> str:
    return f"sqlite:///{folder}/floe.db"


def planned(env: Environment, namespace: str, name: str) -> str:
    made = plan(env, assess(env, rewriting(namespace, name)).id)
    assert len(made.batches) == 1, env.store.assessment(made.assessment_id or "").context["unavailable"]
    return made.id


def kill_a_worker_whose_batch_runs(livy: Livy, env: Environment, plan_id: str, folder: Path) -> OperationRecord:
    """Its record, as it left it."""
    command = [sys.executable, WORKER, store_url(folder), livy.facts["catalog"], plan_id]
    path = ":".join([str(WORKER.parents[2]), str(WORKER.parent)])
    worker = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})

    def running() -> OperationRecord | None:
        assert worker.poll() is None, "the worker ended before it could be killed"
        for record in env.store.operations(statuses=(OperationStatus.COMMITTING,)):
            if "batch" in record.remote_state and applications(record.id):
                return record
        return None

    try:
        record: OperationRecord = wait_for(running, "a running batch")
    finally:
        worker.kill()
        worker.wait()
    return record


def test_the_next_try_waits_for_the_batch_of_a_killed_worker(
    livy: Livy, env: Environment, namespace: str, tmp_path: Path
) -> None:
    table = small(livy, namespace, "t")
    digest, plan_id = rows_digest(table), planned(env, namespace, "t")
    left = kill_a_worker_whose_batch_runs(livy, env, plan_id, tmp_path)
    (before,) = livy.batches(left.id)

    (done,) = execute(env, plan_id, 0, context=TASK).records

    assert (done.id, done.status, done.engine) == (left.id, OperationStatus.SUCCESS, "spark")
    assert done.result is not None
    assert (done.result.files_rewritten, done.result.files_added) == (3, 1)
    (after,) = livy.batches(left.id)
    assert (after["id"], after["state"]) == (before["id"], "success")
    assert [record.id for record in env.store.operations()] == [left.id], "nothing else was ever sent"
    table.refresh()
    assert rows_digest(table) == digest
    assert len(data_files(table)) == 1


def test_another_run_ends_the_batch_of_a_killed_worker_before_its_own(
    livy: Livy, env: Environment, namespace: str, tmp_path: Path
) -> None:
    table = small(livy, namespace, "t")
    digest = rows_digest(table)
    left = kill_a_worker_whose_batch_runs(livy, env, planned(env, namespace, "t"), tmp_path)

    found = run(env, rewriting(namespace, "t"))

    assert env.store.operation(left.id).status is OperationStatus.INTERRUPTED
    assert not livy.batches(left.id)
    assert not applications(left.id)
    (done,) = found.records
    assert (done.status, done.id != left.id) == (OperationStatus.SUCCESS, True)
    assert len(livy.batches(done.id)) == 1
    table.refresh()
    assert rows_digest(table) == digest
    assert len(data_files(table)) == 1


def watch_to_its_end(env: Environment, waiting: Waiting) -> None:
    """As a trigger does it."""
    token, deadline = waiting.lease_token, monotonic() + 420
    while not (found := look(env, waiting.operation_id, token, deadline=None)).over:
        assert monotonic() < deadline, found.message
        token = found.lease_token
        sleep(0.5)


def test_a_task_that_gave_up_its_slot_goes_on_or_has_its_batch_cancelled(
    livy: Livy, env: Environment, namespace: str
) -> None:
    table, other = small(livy, namespace, "t"), small(livy, namespace, "other")
    plan_id = planned(env, namespace, "t")
    waiting = execute(env, plan_id, 0, context=TASK, defer=True).waiting
    assert waiting is not None
    assert waiting.url is not None
    assert waiting.url.startswith(f"{livy.facts['url']}/ui/batch/")
    watch_to_its_end(env, waiting)
    (done,) = execute(env, plan_id, 0, context=TASK, resumed=waiting.operation_id).records
    assert (done.id, done.status) == (waiting.operation_id, OperationStatus.SUCCESS)
    assert len(livy.batches(done.id)) == 1
    table.refresh()
    assert len(data_files(table)) == 1

    snapshot = other.metadata.current_snapshot_id
    waiting = execute(env, planned(env, namespace, "other"), 0, context=TASK, defer=True).waiting
    assert waiting is not None
    operation_id = waiting.operation_id
    wait_for(lambda: applications(operation_id), "the application")
    give_up(env, operation_id, waiting.lease_token)
    assert not livy.batches(operation_id)
    wait_for(lambda: not applications(operation_id), "the end of the application")
    wait_for(lambda: settle_all(env) or env.store.operation(operation_id).status.settled, "settling")
    assert env.store.operation(operation_id).status is OperationStatus.INTERRUPTED
    other.refresh()
    assert other.metadata.current_snapshot_id == snapshot
