"""Many processes that maintain the same tables, with the Floe store and the catalog on one PostgreSQL server."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import count, pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from harness.postgres import PostgreSQL, postgresql
from harness.tables import NAMESPACE, data_files, missing_files, rows_digest, small_files
from pyiceberg.catalog.sql import SqlCatalog

from airflow_provider_floe.catalogs.base import ConnectionFields
from airflow_provider_floe.catalogs.client import connect
from airflow_provider_floe.engines.local.engine import LocalEngine
from airflow_provider_floe.errors import FloeError
from airflow_provider_floe.maintenance.assess import assess
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.execute import execute
from airflow_provider_floe.maintenance.plan import plan
from airflow_provider_floe.maintenance.request import RunRequest
from airflow_provider_floe.maintenance.run import run
from airflow_provider_floe.maintenance.settings import Settings
from airflow_provider_floe.maintenance.settle import settle_all
from airflow_provider_floe.planning.model import RunMode
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.stores.open import open_store
from airflow_provider_floe.stores.protocols import OperationRecord, OperationStatus
from airflow_provider_floe.tables import Operation

pytestmark = pytest.mark.services

PROCESSES = 4
TABLES = 6
FILES = 6
LEASE = 3
PATIENCE = 180
"""Seconds for what takes a few on an idle machine."""

EVERY_HOUR = {"cronExpression": "0 * * * *"}
POLICY = {
    "name": "all",
    "tablePattern": f"lake.{NAMESPACE}.*",
    "rewriteDataFiles": {},
    "rewriteDataFilesSchedule": EVERY_HOUR,
    "expireSnapshots": {"maxSnapshotAge": "PT1S", "retainLast": 1},
    "expireSnapshotsSchedule": EVERY_HOUR,
}

_schemas = count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with postgresql() as running:
        yield running


@pytest.fixture
def url(server: PostgreSQL) -> str:
    name = f"runs_{next(_schemas)}"
    server.execute(f"CREATE SCHEMA {name}")
    return server.url(schema=name)


@pytest.fixture
def catalog(url: str, tmp_path: Path) -> SqlCatalog:
    made = SqlCatalog("lake", uri=url, warehouse=f"file://{tmp_path}", pool_pre_ping="true")
    made.create_namespace(NAMESPACE)
    return made


def environment(url: str, warehouse: Path) -> Environment:
    """What one worker process has."""
    extra = {"catalog_kind": "sql", "uri": url, "warehouse": f"file://{warehouse}"}
    return Environment(
        store=open_store(url),
        policies=(Policy.model_validate(POLICY),),
        catalogs={"lake": connect(ConnectionFields("lake", extra=extra))},
        engines={"local": LocalEngine(memory_limit_bytes=128 * 1024**2)},
        settings=Settings(lease_seconds=LEASE, lease_wait_seconds=PATIENCE),
    )


def scheduled(run_id: str, moment: datetime) -> RunRequest:
    return RunRequest(run_id=run_id, mode=RunMode.SCHEDULED, policies=("all",), run_after=moment)


def one_run(url: str, warehouse: Path, run_id: str, moment: datetime) -> None:
    run(environment(url, warehouse), scheduled(run_id, moment))


def tries_until_done(url: str, warehouse: Path, run_id: str, moment: datetime) -> None:
    """One run whose tasks are tried again as Airflow does, each try in what could be a new process."""
    end = time.monotonic() + PATIENCE
    plan_id, batches, done = "", 0, 0
    while not plan_id or done < batches:
        try:
            env = environment(url, warehouse)
            if not plan_id:
                made = plan(env, assess(env, scheduled(run_id, moment)).id)
                plan_id, batches = made.id, len(made.batches)
            else:
                execute(env, plan_id, done, context={})
                done += 1
        except FloeError as error:
            if not error.retryable or time.monotonic() > end:
                raise
            time.sleep(0.2)


def start(target: Callable[..., None], *arguments: object) -> list[BaseProcess]:
    context = multiprocessing.get_context("spawn")
    moment = datetime.now(UTC)
    started: list[BaseProcess] = []
    for number in range(PROCESSES):
        process = context.Process(target=target, args=(*arguments, f"run-{number}", moment))
        process.start()
        started.append(process)
    return started


def ended(processes: Sequence[BaseProcess]) -> list[int | None]:
    for process in processes:
        process.join(PATIENCE)
        process.kill()
    return [process.exitcode for process in processes]


def worked(env: Environment) -> list[OperationRecord]:
    """Records of operations that ran, oldest first."""
    found = env.store.operations(limit=10_000)
    return sorted((one for one in found if one.status is not OperationStatus.SKIPPED), key=lambda one: one.started_at)


def assert_never_two_at_once(records: Sequence[OperationRecord]) -> None:
    for table in {record.table for record in records}:
        for earlier, later in pairwise(record for record in records if record.table == table):
            assert earlier.finished_at is not None
            assert earlier.finished_at <= later.started_at, (earlier, later)


def test_processes_share_the_tables_out_between_them(url: str, catalog: SqlCatalog, tmp_path: Path) -> None:
    tables = [small_files(catalog, FILES, name=f"t{number}") for number in range(TABLES)]
    before = [rows_digest(table) for table in tables]
    time.sleep(1.1)  # older than maxSnapshotAge
    environment(url, tmp_path).store.close()

    assert ended(start(one_run, url, tmp_path)) == [0] * PROCESSES

    records = worked(environment(url, tmp_path))
    assert_never_two_at_once(records)
    rewritten = [record.table.name for record in records if record.operation is Operation.REWRITE_DATA_FILES]
    assert sorted(rewritten) == sorted(f"t{number}" for number in range(TABLES))  # each once, none forgotten
    assert {record.status for record in records} == {OperationStatus.SUCCESS}
    for table, digest in zip(tables, before, strict=True):
        table.refresh()
        assert rows_digest(table) == digest
        assert len(data_files(table)) == 1
        assert missing_files(table) == []


def test_a_server_that_restarts_in_the_middle_loses_nothing(
    url: str, catalog: SqlCatalog, tmp_path: Path, server: PostgreSQL
) -> None:
    tables = [small_files(catalog, FILES, name=f"t{number}") for number in range(TABLES)]
    before = [rows_digest(table) for table in tables]
    time.sleep(1.1)
    env = environment(url, tmp_path)

    processes = start(tries_until_done, url, tmp_path)
    restarts = 0
    while any(process.is_alive() for process in processes) and restarts < 4:
        known = len(env.store.operations(limit=10_000))
        end = time.monotonic() + PATIENCE
        while any(process.is_alive() for process in processes) and time.monotonic() < end:
            if len(env.store.operations(limit=10_000)) > known:  # something is under way
                server.restart()
                restarts += 1
                break
            time.sleep(0.05)

    assert ended(processes) == [0] * PROCESSES
    assert restarts > 0
    time.sleep(LEASE + 0.5)  # leases of what died with its connection run out
    settle_all(env)
    records = worked(env)
    assert_never_two_at_once(records)
    assert all(record.status.settled for record in records)
    for table, digest in zip(tables, before, strict=True):
        table.refresh()
        assert rows_digest(table) == digest
        assert missing_files(table) == []
    run(env, scheduled("afterwards", datetime.now(UTC)))
    for table in tables:
        table.refresh()
        assert len(data_files(table)) == 1, "forgotten"
