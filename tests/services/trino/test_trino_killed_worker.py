"""A worker is killed while Trino runs: the next try goes on with that query, any other run ends it first."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from harness.services.base import Facts
from harness.services.brake import CommitBrake
from harness.tables import rows_digest
from pyiceberg.catalog.rest import RestCatalog
from trino_server import Server, braked_catalog, small_files
from trino_worker import environment, rewrite

from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.settle import settle_all
from airflow_provider_floe.maintenance.watch import look
from airflow_provider_floe.stores.protocols import OperationRecord, OperationStatus

pytestmark = pytest.mark.services

WORKER = Path(__file__).with_name("trino_worker.py")
KILLED = ["FAILED", "ADMINISTRATIVELY_KILLED"]


@dataclass
class Scene:
    """A table, and a worker that was killed while its query waited to commit."""

    services: dict[str, Facts]
    server: Server
    brake: CommitBrake
    trino_catalog: str
    namespace: str
    store_url: str

    def env(self) -> Environment:
        return environment(self.services, self.store_url, self.trino_catalog)

    def kill_a_worker(self) -> OperationRecord:
        """SIGKILL, when all but the commit is done."""
        self.brake.hold()
        arguments = {
            "services": self.services,
            "store": self.store_url,
            "namespace": self.namespace,
            "table": "t",
            "catalog": self.trino_catalog,
        }
        path = {"PYTHONPATH": ":".join([str(WORKER.parents[2]), str(WORKER.parent)])}
        worker = subprocess.Popen([sys.executable, WORKER, json.dumps(arguments)], env=path)
        try:
            until(lambda: self.brake.held > 0 or worker.poll() is not None)
            assert worker.poll() is None, "the worker ended before it could be killed"
        finally:
            worker.kill()
            worker.wait()
        (record,) = self.env().store.operations()
        assert record.status is OperationStatus.COMMITTING
        return record


@pytest.fixture
def scene(services: dict[str, Facts], server: Server, namespace: str, tmp_path: Path) -> Iterator[Scene]:
    with braked_catalog(server, services) as (brake, name):
        yield Scene(services, server, brake, name, namespace, f"sqlite:///{tmp_path}/floe.db")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_next_try_goes_on_with_the_query(scene: Scene, catalog: RestCatalog) -> None:
    table = small_files(catalog, (scene.namespace, "t"))
    digest = rows_digest(table)
    record = scene.kill_a_worker()
    env = scene.env()

    def release_when_taken_over() -> None:
        until(lambda: env.store.operation(record.id).context["try_number"] == 2)
        scene.brake.release()

    thread = threading.Thread(target=release_when_taken_over)
    thread.start()
    found = rewrite(scene.env(), scene.namespace, "t", try_number=2)
    thread.join()

    (done,) = found.records
    assert (done.id, done.status, done.remote_job) == (record.id, OperationStatus.SUCCESS, record.remote_job)
    assert done.result is not None
    assert (done.result.files_rewritten, done.result.files_added) == (4, 1)
    assert scene.server.queries(record.id) == [[record.remote_job, "FINISHED", None]]
    assert rows_digest(table.refresh()) == digest


def test_another_run_ends_the_query_before_it_sends_its_own(scene: Scene, catalog: RestCatalog) -> None:
    table = small_files(catalog, (scene.namespace, "t"))
    digest, before = rows_digest(table), table.metadata.current_snapshot_id
    record = scene.kill_a_worker()

    def drop_when_killed() -> None:
        until(lambda: [query[1:] for query in scene.server.queries(record.id)] == [KILLED])
        scene.brake.drop()

    thread = threading.Thread(target=drop_when_killed)
    thread.start()
    found = rewrite(scene.env(), scene.namespace, "t", task="another")
    thread.join()

    (done,) = found.records
    assert (done.status, done.engine) == (OperationStatus.SUCCESS, "trino")
    table.refresh()
    assert rows_digest(table) == digest
    assert [s.parent_snapshot_id for s in table.metadata.snapshots][-1] == before
    env = scene.env()
    until(lambda: bool(settle_all(env)) or env.store.operation(record.id).status is OperationStatus.INTERRUPTED)
    assert env.store.operation(record.id).status is OperationStatus.INTERRUPTED
    assert scene.server.rows(
        f'SELECT a."end" <= b.created FROM system.runtime.queries a, system.runtime.queries b '
        f"WHERE a.query_id = '{record.remote_job}' AND b.query_id = '{done.remote_job}'"
    ) == [[True]]


def test_a_watched_query_goes_on_over_processes_and_is_cancelled_at_its_deadline(
    scene: Scene, catalog: RestCatalog
) -> None:
    table = small_files(catalog, (scene.namespace, "t"))
    before = table.metadata.current_snapshot_id
    scene.brake.hold()
    waiting = rewrite(scene.env(), scene.namespace, "t", defer=True).waiting
    assert waiting is not None
    token = waiting.lease_token

    def looked() -> bool:
        nonlocal token
        found = look(scene.env(), waiting.operation_id, token, deadline=None)
        token = found.lease_token
        assert not found.over, found.message
        return scene.brake.held > 0

    until(looked)
    env = scene.env()
    found = look(env, waiting.operation_id, token, deadline=env.now() - timedelta(seconds=1))
    assert found.over
    assert scene.server.queries(waiting.operation_id) == [[waiting.job_id, *KILLED]]
    scene.brake.drop()
    assert table.refresh().metadata.current_snapshot_id == before
