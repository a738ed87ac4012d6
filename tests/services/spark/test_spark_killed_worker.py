"""A worker is killed while Spark runs: the next try lets nothing run beside the job that it left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from harness.services.rest import rest_catalog
from harness.services.running import use
from harness.tables import SCHEMA, append_files, rows_digest
from spark_worker import environment, rewrite

from airflow_provider_floe.engines.base import RemoteEngine
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.events import Event, EventKind
from airflow_provider_floe.stores.protocols import OperationRecord, OperationStatus

pytestmark = pytest.mark.services

WORKER = Path(__file__).with_name("spark_worker.py")


def the_sent(env: Environment, worker: subprocess.Popen[bytes]) -> OperationRecord:
    deadline = time.monotonic() + 180
    while True:
        for record in env.store.operations(statuses=(OperationStatus.COMMITTING,)):
            return record
        assert worker.poll() is None, "the worker ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_nothing_runs_beside_the_job_of_a_killed_worker(tmp_path: Path) -> None:
    with use("s3", "rest", "spark-connect-4.1") as services:
        catalog = rest_catalog(services)
        namespace = f"killed_{uuid4().hex[:8]}"
        catalog.create_namespace(namespace)
        table = append_files(catalog.create_table((namespace, "t"), schema=SCHEMA), 8)
        digest, store_url = rows_digest(table), f"sqlite:///{tmp_path}/floe.db"
        env = environment(services, store_url)
        arguments = {"services": services, "store": store_url, "namespace": namespace}
        path = {**os.environ, "PYTHONPATH": ":".join([str(WORKER.parents[2]), str(WORKER.parent)])}
        worker = subprocess.Popen([sys.executable, WORKER, json.dumps(arguments)], env=path)
        try:
            record = the_sent(env, worker)
        finally:
            worker.kill()
            worker.wait()
        engine = env.engines["spark"]
        assert isinstance(engine, RemoteEngine)
        over: list[bool] = []

        def tell(event: Event) -> None:
            if event.kind is EventKind.OPERATION_STARTED:  # by then the server has nothing of the first job
                over.append(engine.cancel(str(record.remote_job)))

        found = rewrite(replace(env, emit=tell), namespace, try_number=2)

        assert not found.verdict.failed, found.verdict.failures
        assert set(over) <= {True}
        assert env.store.operation(record.id).status is not OperationStatus.SUCCESS, "its snapshots bear no mark"
        table.refresh()
        assert rows_digest(table) == digest
        assert table.inspect.files().num_rows == 1
