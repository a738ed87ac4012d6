"""A worker is killed while Trino runs: the next one ends that query before it starts its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness.services.base import Facts
from harness.tables import rows_digest
from pyiceberg.catalog.rest import RestCatalog
from trino_server import Server, many_small_files
from trino_worker import environment, rewrite

from airflow_provider_floe.stores.open import open_store
from airflow_provider_floe.stores.protocols import OperationRecord, OperationStatus

pytestmark = pytest.mark.services

WORKER = Path(__file__).with_name("trino_worker.py")


def wait_for_the_query(store_url: str, worker: subprocess.Popen[bytes]) -> OperationRecord:
    store = open_store(store_url)
    deadline = time.monotonic() + 90
    while True:
        for record in store.operations(statuses=(OperationStatus.COMMITTING,)):
            return record
        assert worker.poll() is None, "the worker ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_next_run_ends_the_query_of_a_dead_worker_and_does_the_work(
    services: dict[str, Facts], server: Server, catalog: RestCatalog, namespace: str, tmp_path: Path
) -> None:
    table = many_small_files(catalog, (namespace, "t"))
    digest, before = rows_digest(table), table.metadata.current_snapshot_id
    store_url = f"sqlite:///{tmp_path}/floe.db"
    arguments = {"services": services, "store": store_url, "namespace": namespace, "table": "t"}
    path = {"PYTHONPATH": ":".join([str(WORKER.parents[2]), str(WORKER.parent)])}
    worker = subprocess.Popen([sys.executable, WORKER, json.dumps(arguments)], env=path)
    try:
        record = wait_for_the_query(store_url, worker)
    finally:
        worker.kill()
        worker.wait()
    found = rewrite(environment(services, store_url), namespace, "t")

    (done,) = found.records
    assert (done.status, done.engine) == (OperationStatus.SUCCESS, "trino")
    table.refresh()
    assert rows_digest(table) == digest
    assert [s.parent_snapshot_id for s in table.metadata.snapshots][-1] == before
    assert open_store(store_url).operation(record.id).status is OperationStatus.INTERRUPTED
    assert server.rows(
        f'SELECT a.state, a."end" <= b.created FROM system.runtime.queries a, system.runtime.queries b '
        f"WHERE a.query_id = '{record.remote_job}' AND b.query_id = '{done.remote_job}'"
    ) == [["FAILED", True]]
