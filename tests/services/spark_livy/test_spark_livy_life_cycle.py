"""A batch that is cancelled, that Livy forgets, that cannot run: what becomes of it is seen on Livy and the machine."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from harness.tables import SCHEMA, append_files, rows_digest
from livy_spark import LIVY, Livy, applications, now_context, request, wait_for
from pyiceberg.table import Table

from airflow_provider_floe.airflow_livy import CatalogTables
from airflow_provider_floe.engines.base import JobState, OperationResult, RemoteJob
from airflow_provider_floe.engines.spark.livy import LivyAccess, LivyEngine
from airflow_provider_floe.engines.spark.livy_server import LivyServer
from airflow_provider_floe.errors import ConfigurationError, EngineUnavailable, OperationCancelled
from airflow_provider_floe.iceberg.listing import list_files
from airflow_provider_floe.policies.model import RewriteDataFiles

pytestmark = pytest.mark.services


def small(livy: Livy, *name: str) -> Table:
    return append_files(livy.catalog.create_table(name, schema=SCHEMA), 3)


def left_behind(table: Table) -> list[str]:
    every = (file.path for batch in list_files(table.io, table.location()) for file in batch)
    return [path for path in every if "/_floe/" in path]


def sent(engine: LivyEngine, table: Table, operation_id: str) -> RemoteJob:
    job = engine.submit(request(table, RewriteDataFiles(), operation_id), now_context(table))
    assert not isinstance(job, OperationResult)
    return job


def test_cancelling_ends_batch_and_application_before_it_commits(
    livy: Livy, namespace: str, services: dict[str, dict[str, str]]
) -> None:
    table = small(livy, namespace, "cancelled")
    snapshot, operation_id = table.metadata.current_snapshot_id, f"{namespace}-cancelled"
    shown: list[str] = []

    def cancelled() -> None:
        if processes := applications(operation_id):
            shown.extend(Path(f"/proc/{process}/cmdline").read_text() for process in processes)
            shown.append(json.dumps(livy.batches(operation_id)))
            raise OperationCancelled("the task was cleared")

    context = now_context(table, on_checkpoint=cancelled)
    with pytest.raises(OperationCancelled, match="cleared"):
        livy.engine().execute(request(table, RewriteDataFiles(), operation_id), context)
    assert not livy.batches(operation_id)
    wait_for(lambda: not applications(operation_id), "the end of the application")
    table.refresh()
    assert table.metadata.current_snapshot_id == snapshot
    assert not left_behind(table)
    (job,) = context.jobs.values()
    assert services["s3"]["secret"] not in "".join([*shown, job.model_dump_json()])


def test_what_livy_has_forgotten_is_told_by_its_result(livy: Livy, namespace: str) -> None:
    table = small(livy, namespace, "forgotten")
    digest, operation_id = rows_digest(table), f"{namespace}-forgotten"
    job = sent(livy.engine(), table, operation_id)
    (batch,) = wait_for(lambda: [one for one in livy.batches(operation_id) if one["state"] == "success"], "success")
    urllib.request.urlopen(
        urllib.request.Request(
            f"{livy.facts['url']}/batches/{batch['id']}", method="DELETE", headers={"X-Requested-By": "test"}
        ),
        timeout=60,
    ).close()
    engine, context = livy.engine(), now_context(table)  # as another process would

    status = engine.poll(job)
    assert status.state is JobState.FINISHED
    result = engine.collect(request(table, RewriteDataFiles(), operation_id), context, status)

    assert (result.files_rewritten, result.files_added) == (3, 1)
    assert result.duration_seconds > 1
    assert engine.cancel(job.id), "one that is over is none to cancel"
    assert engine.poll(job).state is JobState.GONE
    table.refresh()
    assert rows_digest(table) == digest
    assert not left_behind(table)


class Forgetful:
    """A Livy that was started anew, and knows of no batch, while the applications of its past go on."""

    url = "http://livy.example"

    def __call__(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Mapping[str, Any]]:
        return (200, {"total": 0, "sessions": []}) if "?from" in path else (404, {"msg": "Session not found."})


def test_an_application_that_livy_cannot_reach_ends_itself(livy: Livy, namespace: str) -> None:
    table = small(livy, namespace, "unreachable")
    snapshot, operation_id = table.metadata.current_snapshot_id, f"{namespace}-unreachable"
    engine = livy.engine()
    job = sent(engine, table, operation_id)
    wait_for(lambda: applications(operation_id), "the application")
    access = LivyAccess(LivyServer(Forgetful(), LIVY), "job.py", {}, CatalogTables(), engine.catalogs)
    lost = LivyEngine(access, engine.catalogs)

    status = lost.poll(job)
    assert status.state is JobState.RUNNING, "it may run"
    deadline = monotonic() + 120
    while (status := lost.poll(status.job)).state is JobState.RUNNING:
        assert monotonic() < deadline
        sleep(0.2)
    assert status.state is JobState.GONE
    with pytest.raises(EngineUnavailable, match=f"'{LIVY}' has no batch floe-{operation_id} any more"):
        lost.collect(request(table, RewriteDataFiles(), operation_id), now_context(table), status)
    wait_for(lambda: not applications(operation_id), "the end of the application")
    table.refresh()
    assert table.metadata.current_snapshot_id == snapshot
    assert not left_behind(table)


def test_a_file_that_livy_may_not_run_is_refused_and_nothing_stays(
    livy: Livy, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = small(livy, namespace, "refused")
    connect(livy, monkeypatch, "/etc/hostname.py")
    asked = request(table, RewriteDataFiles())
    with pytest.raises(ConfigurationError, match=f"'{LIVY}' refuses the batch: .*floe_livy_job_file"):
        livy.engine().execute(asked, now_context(table))
    assert not livy.batches(asked.operation_id)
    assert not left_behind(table)


def test_a_batch_that_dies_is_told_with_its_log_and_an_old_job_by_name(
    livy: Livy, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = small(livy, namespace, "failed")
    connect(livy, monkeypatch, f"{livy.facts['files']}/nowhere.py")
    engine, asked = livy.engine(), request(table, RewriteDataFiles())
    with pytest.raises(EngineUnavailable, match=rf"on Livy of connection '{LIVY}' ended \(dead.*nowhere.py.*/ui/batch"):
        engine.execute(asked, now_context(table))

    old = Path(livy.facts["files"], f"{namespace}.py")
    old.write_text(Path(livy.extra["floe_livy_job_file"].removeprefix("file://")).read_text() + "\n# older\n")
    connect(livy, monkeypatch, str(old))
    with pytest.raises(ConfigurationError, match=rf"{old.name} \(floe_livy_job_file .*of another version"):
        livy.engine().execute(request(table, RewriteDataFiles()), now_context(table))
    assert not left_behind(table)


def test_a_table_that_spark_does_not_know_is_told(livy: Livy, namespace: str) -> None:
    table = small(livy, namespace, "unknown")
    with pytest.raises(ConfigurationError, match=f"'{LIVY}' cannot load nowhere.{namespace}.unknown.*floe_catalogs"):
        livy.engine("nowhere").execute(request(table, RewriteDataFiles()), now_context(table))
    assert not left_behind(table)


def connect(livy: Livy, monkeypatch: pytest.MonkeyPatch, job_file: str) -> None:
    extra = {**livy.extra, "floe_livy_job_file": f"file://{job_file}"}
    document = {"conn_type": "livy", "host": livy.facts["host"], "port": int(livy.facts["port"]), "extra": extra}
    monkeypatch.setenv(f"AIRFLOW_CONN_{LIVY.upper()}", json.dumps(document))
