"""Runs that die, overlap or are stopped at the worst moments: nothing is lost, run twice or recorded wrongly."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from harness.tables import append_files, create_table, lake, local_path, missing_files, rows, small_files
from pyiceberg.catalog.sql import SqlCatalog

from airflow_provider_floe.catalogs.base import ConnectionFields
from airflow_provider_floe.catalogs.client import connect
from airflow_provider_floe.engines.base import OperationRequest, OperationResult
from airflow_provider_floe.engines.local.engine import LocalEngine
from airflow_provider_floe.health.report import TableId
from airflow_provider_floe.maintenance.assess import assess
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.execute import execute
from airflow_provider_floe.maintenance.plan import plan
from airflow_provider_floe.maintenance.request import RunRequest
from airflow_provider_floe.maintenance.restore import restore
from airflow_provider_floe.maintenance.run import run
from airflow_provider_floe.maintenance.settings import Settings
from airflow_provider_floe.maintenance.verdict import verdict
from airflow_provider_floe.planning.model import Plan, RunMode
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.stores.open import open_store
from airflow_provider_floe.stores.protocols import OperationRecord, OperationStatus
from airflow_provider_floe.tables import Operation, TableRef

EVENTS = TableRef("lake", ("db",), "events")
LEASE = 2


@pytest.fixture
def catalog(tmp_path: Path) -> SqlCatalog:
    return lake(tmp_path)


@pytest.fixture
def env(tmp_path: Path, catalog: SqlCatalog) -> Environment:
    extra = {
        "catalog_kind": "sql",
        "uri": f"sqlite:///{tmp_path}/catalog.db",
        "warehouse": f"file://{tmp_path}/warehouse",
    }
    policy = {
        "name": "all",
        "tablePattern": "lake.db.*",
        "rewriteDataFiles": {},
        "rewriteDataFilesSchedule": {"cronExpression": "0 * * * *"},
        "expireSnapshots": {"maxSnapshotAge": "PT1S", "retainLast": 1},
        "orphanCleanup": {"quarantine": "P7D"},
    }
    return Environment(
        store=open_store(f"sqlite:///{tmp_path}/floe.db"),
        policies=(Policy.model_validate(policy),),
        catalogs={"lake": connect(ConnectionFields("lake", extra=extra))},
        engines={"local": LocalEngine(memory_limit_bytes=256 * 1024**2)},
        settings=Settings(lease_seconds=LEASE, lease_wait_seconds=0),
    )


def planned(env: Environment, *operations: Operation, mode: RunMode = RunMode.TABLE_CONF) -> Plan:
    scheduled = mode is RunMode.SCHEDULED
    request = RunRequest(
        run_id="run-1",
        mode=mode,
        policies=("all",) if scheduled else (),
        table=None if scheduled else TableId.of(EVENTS),
        operations=None if scheduled else operations,
        run_after=datetime.now(UTC) if scheduled else None,
    )
    return plan(env, assess(env, request).id)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours runs after it."""


class Dying:
    """A store whose process dies when it calls one method; a dead process releases and records nothing."""

    def __init__(self, store: Any, at: str) -> None:
        self._store = store
        self._at = at
        self._dead = False

    def __getattr__(self, name: str) -> Any:
        if name == self._at:
            self._dead = True
        if self._dead and name not in ("transaction", "operation"):
            return self._die
        return getattr(self._store, name)

    def _die(self, *_: Any, **__: Any) -> Any:
        raise Killed


def killed_at(env: Environment, call: str, made: Plan) -> None:
    with pytest.raises(Killed):
        execute(replace(env, store=Dying(env.store, call)), made.id, 0, context={})
    time.sleep(LEASE + 0.3)


class Wrapped:
    """The local engine, with something happening at one point of an operation."""

    name = "local"

    def __init__(self, **hooks: Callable[[], Any]) -> None:
        self._engine = LocalEngine(memory_limit_bytes=256 * 1024**2)
        self._hooks = hooks

    def probe(self) -> Any:
        return self._engine.probe()

    def execute(self, request: OperationRequest, context: Any) -> OperationResult:
        return self._engine.execute(request, _Context(context, self._hooks))


class _Context:
    def __init__(self, context: Any, hooks: Mapping[str, Callable[[], Any]]) -> None:
        self._context = context
        self._hooks = hooks

    def __getattr__(self, name: str) -> Any:
        if name in self._hooks:
            self._hooks[name]()
        return getattr(self._context, name)


def executed(env: Environment, made: Plan, operation: Operation) -> list[OperationRecord]:
    records = env.store.operations(table=EVENTS, operation=operation)
    return [record for record in records if record.status is OperationStatus.SUCCESS]


def test_a_slot_is_run_once_though_its_task_died_while_recording_it(env: Environment, catalog: SqlCatalog) -> None:
    table = small_files(catalog, 6)
    made = planned(env, mode=RunMode.SCHEDULED)
    (item,) = [one for one in made.to_run if one.operation is Operation.REWRITE_DATA_FILES]
    killed_at(env, "record_slot", made)
    assert not verdict(env, made.id, made.assessment_id).failed
    (record,) = executed(env, made, Operation.REWRITE_DATA_FILES)
    assert env.store.consumed_slot(EVENTS, Operation.REWRITE_DATA_FILES) == item.slot
    snapshots = len(table.refresh().metadata.snapshots)
    append_files(table, 6, start=1000)
    run(env, RunRequest(run_id="run-2", mode=RunMode.SCHEDULED, policies=("all",), run_after=item.slot))
    assert executed(env, made, Operation.REWRITE_DATA_FILES) == [record]
    assert len(table.refresh().metadata.snapshots) == snapshots + 6


def test_a_second_try_of_a_batch_runs_nothing_that_the_first_is_running(env: Environment, catalog: SqlCatalog) -> None:
    small_files(catalog, 6)
    waiting = replace(env, settings=env.settings.model_copy(update={"lease_wait_seconds": 30}))
    made = planned(waiting, Operation.REWRITE_DATA_FILES)
    second: list[Any] = []
    thread = threading.Thread(target=lambda: second.append(execute(waiting, made.id, 0, context={"try_number": 2})))

    def start() -> None:
        if not thread.ident:
            thread.start()
            time.sleep(0.5)

    first = execute(replace(waiting, engines={"local": Wrapped(committing=start)}), made.id, 0, context={})
    thread.join()
    assert [record.status for record in first.records] == [OperationStatus.SUCCESS]
    assert second[0].records == ()
    assert [record.item_id for record in second[0].before] == [item.id for item in made.to_run]
    assert len(env.store.operations(table=EVENTS)) == 1


def test_a_table_that_cannot_be_settled_does_not_stop_the_others_of_its_batch(
    env: Environment, catalog: SqlCatalog
) -> None:
    table = small_files(catalog, 6)
    small_files(catalog, 6, name="later")
    dead = OperationRecord(
        id="dead",
        table=TableId.of(EVENTS),
        operation=Operation.REWRITE_DATA_FILES,
        status=OperationStatus.RUNNING,
        started_at=env.store.now(),
    )
    made = planned(env, mode=RunMode.SCHEDULED)
    env.store.save_operation(dead)
    assert len(made.batches) == 1
    local_path(table.metadata_location).write_bytes(b"damaged")
    result = execute(env, made.id, 0, context={})
    outcome = {record.table.name: record.status for record in result.records}
    assert outcome == {"events": OperationStatus.FAILED, "later": OperationStatus.SUCCESS}
    assert env.store.operation("dead").status is OperationStatus.RUNNING


def test_dead_outputs_of_a_dropped_table_stop_nothing(env: Environment, catalog: SqlCatalog) -> None:
    small_files(catalog, 6)
    made = planned(env, Operation.REWRITE_DATA_FILES)
    killed_at(env, "record_outputs", made)
    catalog.drop_table(("db", "events"))
    assert not [line for line in verdict(env, made.id, made.assessment_id).failures if "Killed" in line]
    (record,) = execute(env, made.id, 0, context={}).records or env.store.operations(table=EVENTS)[:1]
    assert record.status in (OperationStatus.INTERRUPTED, OperationStatus.FAILED)


def test_files_whose_move_to_quarantine_was_not_recorded_come_back(env: Environment, catalog: SqlCatalog) -> None:
    table = create_table(catalog)
    append_files(table, 1)
    orphan = local_path(table.location()) / "data" / "orphan.parquet"
    orphan.write_bytes(b"wanted after all")
    week_ago = time.time() - 7 * 86_400
    os.utime(orphan, (week_ago, week_ago))
    killed_at(env, "mark_done", planned(env, Operation.REMOVE_ORPHAN_FILES))
    assert not orphan.exists()
    (record,) = env.store.operations(table=EVENTS, operation=Operation.REMOVE_ORPHAN_FILES)
    assert restore(env, record.id) == 1
    assert orphan.read_bytes() == b"wanted after all"


def stop() -> None:
    raise SystemExit(143)


def test_a_commit_that_was_sent_when_its_task_was_told_to_stop_counts(env: Environment, catalog: SqlCatalog) -> None:
    table = small_files(catalog, 6)
    made = planned(env, Operation.REWRITE_DATA_FILES)
    with pytest.raises(SystemExit):
        execute(replace(env, engines={"local": Wrapped(committed=stop)}), made.id, 0, context={})
    assert not verdict(env, made.id, made.assessment_id).failed
    (record,) = executed(env, made, Operation.REWRITE_DATA_FILES)
    assert record.result is not None
    assert record.result.snapshot_after == table.refresh().metadata.current_snapshot_id


def test_promise_9_a_tag_lost_to_an_expiry_that_died_is_given_back(env: Environment, catalog: SqlCatalog) -> None:
    table = small_files(catalog, 4)
    table.overwrite(rows(100, 10))
    time.sleep(1.1)
    first = table.metadata.snapshots[0].snapshot_id
    made = planned(env, Operation.EXPIRE_SNAPSHOTS)
    tagged = threading.Event()

    def tag() -> None:
        if not tagged.is_set():
            tagged.set()
            catalog.load_table("db.events").manage_snapshots().create_tag(first, "audit").commit()

    def die_after_commit() -> None:
        if len(catalog.load_table("db.events").metadata.snapshots) == 1:
            raise Killed

    engine = Wrapped(committing=tag, load_table=die_after_commit)
    with pytest.raises(Killed):
        execute(replace(env, engines={"local": engine}, store=_Silent(env.store)), made.id, 0, context={})
    assert "audit" not in table.refresh().refs()
    time.sleep(LEASE + 0.3)
    assert not verdict(env, made.id, made.assessment_id).failed
    assert table.refresh().refs()["audit"].snapshot_id == first
    assert missing_files(table) == []
    assert sorted(table.scan(snapshot_id=first).to_arrow()["id"].to_pylist()) == list(range(10))


def test_an_expiry_whose_commit_could_not_be_recorded_is_looked_up(env: Environment, catalog: SqlCatalog) -> None:
    table = small_files(catalog, 4)
    time.sleep(1.1)
    made = planned(env, Operation.EXPIRE_SNAPSHOTS)

    def fail() -> None:
        raise OSError("the store is full")

    (record,) = execute(replace(env, engines={"local": Wrapped(committed=fail)}), made.id, 0, context={}).records
    assert record.status is OperationStatus.UNKNOWN
    assert len(table.refresh().metadata.snapshots) == 1
    assert not verdict(env, made.id, made.assessment_id).failed
    assert env.store.operation(record.id).status is OperationStatus.SUCCESS


class _Silent:
    """A store to which a process that was killed writes no outcome; its lease is left to run out."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def transition(self, *args: Any, to: OperationStatus, **kwargs: Any) -> Any:
        if to.finished:
            return self._store.operation(args[0])
        return self._store.transition(*args, to=to, **kwargs)

    def release(self, lease: Any) -> None:
        return None
