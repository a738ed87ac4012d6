"""What Spark is found to be able to do, and what happens when it cannot, or is not to go on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from harness.tables import SCHEMA, append_files, rows_digest
from pyiceberg.table import Table
from spark_submission import CATALOG, Spark, now_context, run

from airflow_provider_floe.engines.base import OPERATION_ID_PROPERTY, RemoteEngine
from airflow_provider_floe.engines.spark.engine import SparkEngine
from airflow_provider_floe.engines.spark.process import SparkSubmit, SparkSubmitProcess
from airflow_provider_floe.engines.spark.submit import SubmitRoute
from airflow_provider_floe.errors import (
    ConfigurationError,
    EngineUnavailable,
    OperationCancelled,
    UnsupportedSetting,
)
from airflow_provider_floe.policies.model import SETTINGS_MODELS, ExpireSnapshots, RewriteDataFiles
from airflow_provider_floe.tables import Operation

pytestmark = pytest.mark.services


def small(spark: Spark, *name: str) -> Table:
    return append_files(spark.catalog.create_table(name, schema=SCHEMA), 3)


def running(text: str) -> list[int]:
    """Processes whose command line holds a text."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in command.read_bytes():
                found.append(int(command.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_every_setting_is_honoured_or_refused_by_what_spark_has(spark: Spark) -> None:
    found = spark.engine(catalogs={CATALOG: spark.facts["catalog"], "other": "nowhere"}).probe()
    assert spark.facts["version"] in found.version
    refused = {}
    for operation, model in SETTINGS_MODELS.items():
        capability = found.operations[operation]
        assert capability.supported, capability.reason
        wires = {field.alias or name for name, field in model.model_fields.items()}
        assert capability.honoured | capability.refused.keys() == wires
        assert not capability.honoured & capability.refused.keys()
        refused[operation] = set(capability.refused)
    deleting = {Operation.EXPIRE_SNAPSHOTS, Operation.REMOVE_ORPHAN_FILES}
    assert refused == {one: {"quarantine"} if one in deleting else set() for one in Operation}
    assert found.catalogs is not None
    assert not found.catalogs[CATALOG].refusal
    assert "'nowhere'" in found.catalogs["other"].refusal


def test_cancelling_ends_the_application_before_it_commits(spark: Spark, namespace: str) -> None:
    table = small(spark, namespace, "cancelled")
    snapshot = table.metadata.current_snapshot_id
    seen: list[list[int]] = []

    def cancel_once_it_runs() -> None:
        if len(processes := running("op-cancelled")) > 1:
            seen.append(processes)
            raise OperationCancelled("the task was cleared")

    context = now_context(table, on_checkpoint=cancel_once_it_runs)
    with pytest.raises(OperationCancelled, match="cleared"):
        run(spark.engine(), table, RewriteDataFiles(), context, operation_id="op-cancelled")
    assert seen
    assert not running("op-cancelled")
    assert table.metadata.current_snapshot_id == snapshot


class OutOfReach(SparkSubmit):
    """A spark-submit whose application no one here can kill, as on a cluster that is cut off."""

    def __call__(
        self, application: Path, arguments: Sequence[str], *, files: Sequence[Path], name: str, here: bool = False
    ) -> SparkSubmitProcess:
        submission = super().__call__(application, arguments, files=files, name=name, here=here)
        submission.kill = lambda: None  # type: ignore[method-assign]
        return submission


def test_an_application_out_of_reach_stops_itself(spark: Spark, namespace: str) -> None:
    table = small(spark, namespace, "leashed")
    snapshot = table.metadata.current_snapshot_id
    submit = spark.submit()
    submit.__class__ = OutOfReach

    def cancelled() -> None:
        if running("op-leashed"):
            raise OperationCancelled("the task was cleared")

    engine = SparkEngine(SubmitRoute(submit, "spark_test"), {CATALOG: spark.facts["catalog"]})
    with pytest.raises(OperationCancelled):
        run(engine, table, RewriteDataFiles(), now_context(table, on_checkpoint=cancelled), operation_id="op-leashed")
    assert not running("op-leashed")
    assert table.metadata.current_snapshot_id == snapshot


@pytest.mark.parametrize("known", ["as it is on record", "by its leash alone"])
def test_nothing_of_a_killed_worker_runs_once_it_is_said_to_be_over(spark: Spark, namespace: str, known: str) -> None:
    table = small(spark, namespace, "orphaned")
    digest, snapshot = rows_digest(table), table.metadata.current_snapshot_id
    operation_id = f"op-{uuid4().hex}"
    worker = os.fork()
    if worker == 0:  # what Airflow does for each task
        try:
            engine = spark.engine(leash_seconds=5)
            run(engine, table, RewriteDataFiles(), now_context(table), operation_id=operation_id)
        finally:
            os._exit(0)
    while len(running(operation_id)) < 1:
        time.sleep(0.05)
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    assert running(operation_id)

    engine = spark.engine(leash_seconds=5)
    assert isinstance(engine, RemoteEngine)
    job = f"spark-submit:{table.location()}/_floe/{operation_id if known == 'as it is on record' else 'another'}.leash"
    assert engine.cancel(job)
    assert not running(operation_id)
    table.refresh()
    current = table.metadata.current_snapshot()
    assert current is not None
    ours = current.summary is not None and current.summary.get(OPERATION_ID_PROPERTY) == operation_id
    assert ours or current.snapshot_id == snapshot
    assert rows_digest(table) == digest


def test_errors_name_the_connection_and_what_to_check(spark: Spark, namespace: str) -> None:
    table = small(spark, namespace, "errors")
    idle = now_context(table)
    with pytest.raises(UnsupportedSetting, match="setting quarantine="):
        run(spark.engine(), table, ExpireSnapshots(quarantine=timedelta(days=1)), idle)
    with pytest.raises(ConfigurationError, match=r"'spark_test' does not say how Spark calls catalog 'prod'"):
        run(spark.engine(catalogs={"archive": "lake"}), table, RewriteDataFiles(), idle)
    assert not idle.remote_jobs
    nowhere = SparkSubmit(["spark-submit-that-is-not-there"], connection="spark_test")
    with pytest.raises(EngineUnavailable, match=r"'spark_test'.*not-there cannot be started.*on the PATH"):
        run(SparkEngine(SubmitRoute(nowhere, "spark_test"), {CATALOG: "lake"}), table, RewriteDataFiles())
    with pytest.raises(ConfigurationError, match=r"'spark_test' cannot load .*floe_catalogs"):
        run(spark.engine(catalogs={CATALOG: "nowhere"}), table, RewriteDataFiles())
