"""The main job through the use cases: real tables, real store, the local engine; no Airflow."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from harness.tables import (
    append_files,
    create_table,
    data_files,
    lake,
    local_path,
    missing_files,
    rows,
    rows_digest,
    small_files,
    stored_files,
)
from pyiceberg.catalog.sql import SqlCatalog

from airflow_provider_floe.catalogs.base import ConnectionFields
from airflow_provider_floe.catalogs.client import connect
from airflow_provider_floe.engines.base import OperationRequest, OperationResult
from airflow_provider_floe.engines.local.engine import LocalEngine
from airflow_provider_floe.errors import (
    CommitOutcomeUnknown,
    PolicyDisabled,
    PolicyDoesNotMatch,
    PolicyNotFound,
    TableNotFound,
)
from airflow_provider_floe.health.report import FailureKind, TableId
from airflow_provider_floe.maintenance.assess import assess
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.events import Event, EventKind
from airflow_provider_floe.maintenance.execute import execute
from airflow_provider_floe.maintenance.plan import plan
from airflow_provider_floe.maintenance.request import RunRequest, RunResult
from airflow_provider_floe.maintenance.restore import restore
from airflow_provider_floe.maintenance.run import run
from airflow_provider_floe.maintenance.settings import Settings
from airflow_provider_floe.maintenance.verdict import verdict
from airflow_provider_floe.planning.model import Disposition, RunMode
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.stores.open import open_store
from airflow_provider_floe.stores.protocols import JournalKind, OperationStatus, SlotOutcome
from airflow_provider_floe.tables import Operation, TableRef

EVENTS = TableRef("lake", ("db",), "events")
EVERY_HOUR = {"cronExpression": "0 * * * *"}


def policy(name: str = "all", pattern: str = "lake.db.*", **fields: Any) -> Policy:
    document: dict[str, Any] = {
        "name": name,
        "tablePattern": pattern,
        "rewriteDataFiles": {},
        "rewriteDataFilesSchedule": EVERY_HOUR,
        "expireSnapshots": {"maxSnapshotAge": "PT1S", "retainLast": 1},
        "expireSnapshotsSchedule": EVERY_HOUR,
        "orphanCleanup": {},
        "orphanCleanupSchedule": EVERY_HOUR,
        "rewriteManifests": {},
        "rewriteManifestsSchedule": EVERY_HOUR,
    }
    return Policy.model_validate({**document, **fields})


@pytest.fixture
def catalog(tmp_path: Path) -> SqlCatalog:
    return lake(tmp_path)


@pytest.fixture
def env(tmp_path: Path, catalog: SqlCatalog) -> Environment:
    connection = ConnectionFields(
        "lake",
        extra={
            "catalog_kind": "sql",
            "uri": f"sqlite:///{tmp_path}/catalog.db",
            "warehouse": f"file://{tmp_path}/warehouse",
        },
    )
    return Environment(
        store=open_store(f"sqlite:///{tmp_path}/floe.db"),
        policies=(policy(),),
        catalogs={"lake": connect(connection)},
        engines={"local": LocalEngine(memory_limit_bytes=256 * 1024**2)},
        settings=Settings(lease_seconds=3, lease_wait_seconds=0),
    )


def scheduled(*policies: str, run_id: str = "run-1", after: datetime | None = None) -> RunRequest:
    return RunRequest(
        run_id=run_id,
        mode=RunMode.SCHEDULED,
        policies=policies or ("all",),
        run_after=after or datetime.now(UTC),
        context={"dag_id": "floe_policy_all"},
    )


def for_table(table: TableRef = EVENTS, **fields: Any) -> RunRequest:
    return RunRequest(run_id="conf-1", mode=RunMode.TABLE_CONF, table=TableId.of(table), **fields)


def decisions(result: RunResult, table: str = "events") -> dict[Operation, Disposition]:
    governed = (item for item in result.plan.items if item.disposition is not Disposition.NOT_GOVERNED)
    return {item.operation: item.disposition for item in governed if item.table.name == table}


def test_an_unhealthy_table_is_maintained_and_then_left_alone(
    env: Environment, catalog: SqlCatalog, tmp_path: Path
) -> None:
    table = small_files(catalog, 12)
    before = rows_digest(table)
    orphan = local_path(table.location()) / "data" / "orphan.parquet"
    orphan.write_bytes(b"left behind")
    week_ago = time.time() - 7 * 86_400
    os.utime(orphan, (week_ago, week_ago))
    time.sleep(1.1)  # older than maxSnapshotAge
    moment = datetime.now(UTC)
    env = replace(env, now=lambda: moment)  # "right after", however slow the machine: what a run commits stays young

    first = run(env, scheduled())

    table.refresh()
    assert not first.verdict.failed, first.verdict.failures
    statuses = {record.operation: record.status for record in first.records}
    assert statuses[Operation.REWRITE_DATA_FILES] is OperationStatus.SUCCESS
    assert statuses[Operation.EXPIRE_SNAPSHOTS] is OperationStatus.SUCCESS
    assert statuses[Operation.REMOVE_ORPHAN_FILES] is OperationStatus.SUCCESS
    assert rows_digest(table) == before
    assert len(data_files(table)) == 1
    assert not orphan.exists()
    assert missing_files(table) == []
    assert env.store.latest_report(EVENTS) is not None
    assert env.store.plan(first.plan.id) == first.plan

    snapshot = table.current_snapshot()
    again = run(env, scheduled(run_id="run-2", after=datetime.now(UTC) + timedelta(hours=1)))
    assert again.records == ()
    fresh = replace(env, store=open_store(f"sqlite:///{tmp_path}/other.db"))
    for result in (again, run(fresh, for_table()), run(fresh, for_table(force=True))):
        assert set(decisions(result).values()) == {Disposition.NO_WORK}, result.plan.items
        assert all(item.reasons for item in result.plan.items)
    told = fresh.store.operations(table=EVENTS)
    assert {record.status for record in told} == {OperationStatus.NO_OPERATIONS}
    assert all("no work" in record.reason for record in told)
    assert table.refresh().current_snapshot() == snapshot


def test_a_healthy_table_is_not_touched(env: Environment, catalog: SqlCatalog) -> None:
    table = small_files(catalog, 1)
    files = stored_files(table)
    result = run(env, scheduled())
    assert set(decisions(result).values()) == {Disposition.NO_WORK}
    assert stored_files(table) == files


def test_a_broken_table_fails_alone(env: Environment, catalog: SqlCatalog) -> None:
    good = small_files(catalog, 6)
    broken = small_files(catalog, 2, name="broken")
    local_path(broken.metadata_location).write_text("{")

    result = run(env, scheduled())

    assert result.verdict.failed
    assert [line for line in result.verdict.failures if "lake.db.broken" in line]
    assert all("lake.db.events" not in line for line in result.verdict.failures)
    assert [failure.kind for failure in result.plan.failures] == [FailureKind.UNREADABLE]
    assert len(data_files(good.refresh())) == 1


def test_a_dry_run_changes_nothing(env: Environment, catalog: SqlCatalog) -> None:
    table = small_files(catalog, 6)
    files = stored_files(table)
    result = run(env, scheduled().model_copy(update={"dry_run": True}))
    assert decisions(result)[Operation.REWRITE_DATA_FILES] is Disposition.RUN
    assert result.records == ()
    assert stored_files(table) == files
    assert env.store.operations() == []
    assert env.store.last_slot(EVENTS, Operation.REWRITE_MANIFESTS) is None
    assert env.store.latest_report(EVENTS) is None


@pytest.mark.parametrize(
    ("change", "request_fields", "error"),
    [
        (lambda env: env, {"table": TableId(catalog="lake", namespace=("db",), name="missing")}, TableNotFound),
        (lambda env: replace(env, policies=()), {}, PolicyNotFound),
        (lambda env: replace(env, policies=(policy(enabled=False),)), {}, PolicyDisabled),
        (lambda env: env, {"policies": ("unheard-of",)}, PolicyNotFound),
        (
            lambda env: replace(env, policies=(policy(pattern="lake.web.*"),)),
            {"policies": ("all",)},
            PolicyDoesNotMatch,
        ),
    ],
)
def test_a_table_run_that_cannot_be_meant_is_refused_before_anything_is_touched(
    env: Environment,
    catalog: SqlCatalog,
    change: Callable[[Environment], Environment],
    request_fields: dict[str, Any],
    error: type[Exception],
) -> None:
    table = small_files(catalog, 4)
    files = stored_files(table)
    with pytest.raises(error):
        run(change(env), for_table().model_copy(update=request_fields))
    assert stored_files(table) == files
    assert env.store.plans() == []
    refused = OperationStatus.SKIPPED if error is TableNotFound else OperationStatus.NO_POLICY
    records = env.store.operations()
    assert {(record.operation, record.status) for record in records} == {(each, refused) for each in Operation}
    assert all(record.error for record in records)


class FailingEngine:
    """The local engine, failing where a test says."""

    def __init__(self, error: Exception | None = None, on: Operation = Operation.REWRITE_DATA_FILES) -> None:
        self.name = "local"
        self._engine = LocalEngine(memory_limit_bytes=256 * 1024**2)
        self._error = error
        self._on = on

    def probe(self) -> Any:
        return self._engine.probe()

    def execute(self, request: OperationRequest, context: Any) -> OperationResult:
        if self._error is not None and request.operation is self._on:
            raise self._error
        return self._engine.execute(request, context)


def test_a_failed_operation_stops_those_after_it_and_leaves_their_slots_open(
    env: Environment, catalog: SqlCatalog
) -> None:
    small_files(catalog, 6)
    time.sleep(1.1)
    failing = replace(env, engines={"local": FailingEngine(RuntimeError("disk full"))})

    result = run(failing, scheduled())

    statuses = {record.operation: record.status for record in result.records}
    assert statuses[Operation.REWRITE_DATA_FILES] is OperationStatus.FAILED
    assert statuses[Operation.EXPIRE_SNAPSHOTS] is OperationStatus.SKIPPED
    assert any("disk full" in line for line in result.verdict.failures)
    assert env.store.consumed_slot(EVENTS, Operation.EXPIRE_SNAPSHOTS) is None
    assert env.store.consumed_slot(EVENTS, Operation.REWRITE_DATA_FILES) is not None
    assert env.store.lease(EVENTS) is None or not env.store.holds(env.store.lease(EVENTS))

    next_hour = datetime.now(UTC) + timedelta(hours=1)
    after = run(env, scheduled(run_id="run-2", after=next_hour))
    assert not after.verdict.failed
    assert {record.status for record in after.records} == {OperationStatus.SUCCESS}


def test_an_unknown_commit_stays_unknown_until_it_was_looked_up(env: Environment, catalog: SqlCatalog) -> None:
    small_files(catalog, 6)
    failing = replace(env, engines={"local": FailingEngine(CommitOutcomeUnknown("504 from the catalog"))})
    result = run(failing, for_table(operations=(Operation.REWRITE_DATA_FILES,)))
    assert result.verdict.failed
    record = env.store.operation(result.records[0].id)
    # the lookup found no commit of this operation, and none had been begun: nothing can land any more
    assert record.status in (OperationStatus.UNKNOWN, OperationStatus.INTERRUPTED)
    assert env.store.consumed_slot(EVENTS, Operation.REWRITE_DATA_FILES) is None


def test_a_busy_table_is_left_to_the_run_that_has_it(env: Environment, catalog: SqlCatalog) -> None:
    table = small_files(catalog, 6)
    snapshot = table.current_snapshot()
    assert env.store.acquire(EVENTS, "another run", timedelta(minutes=5)) is not None
    result = run(env, scheduled())
    assert {record.status for record in result.records} == {OperationStatus.SKIPPED}
    assert all("another run" in (record.error or "") for record in result.records)
    last = env.store.last_slot(EVENTS, Operation.REWRITE_DATA_FILES)
    assert last is not None
    assert last.outcome is SlotOutcome.BUSY
    assert env.store.consumed_slot(EVENTS, Operation.REWRITE_DATA_FILES) is None
    assert table.refresh().current_snapshot() == snapshot


def test_a_retried_batch_runs_only_what_is_unfinished(env: Environment, catalog: SqlCatalog) -> None:
    small_files(catalog, 6)
    assessment = assess(env, for_table(operations=(Operation.REWRITE_DATA_FILES,)))
    made = plan(env, assessment.id)
    first = execute(env, made.id, 0, context={})
    assert [record.status for record in first.records] == [OperationStatus.SUCCESS]
    again = execute(env, made.id, 0, context={"try_number": 2})
    assert again.records == ()
    assert [record.item_id for record in again.before] == [item.id for item in made.to_run]


def test_what_a_dead_task_left_behind_is_settled_and_cleaned_up(env: Environment, catalog: SqlCatalog) -> None:
    table = small_files(catalog, 6)
    before = rows_digest(table)

    class Killed(BaseException):
        """Stands for SIGKILL: nothing of ours runs after it."""

    class Dying(FailingEngine):
        def execute(self, request: OperationRequest, context: Any) -> OperationResult:
            half = f"{table.location()}/data/half-written.parquet"
            context.journal.record_outputs([half])
            local_path(half).write_bytes(b"half")
            raise Killed

    dying = replace(env, engines={"local": Dying()})
    assessment = assess(dying, for_table(operations=(Operation.REWRITE_DATA_FILES,)))
    made = plan(dying, assessment.id)
    # a killed process writes nothing more: neither the outcome nor the release of its lease
    silent = replace(dying, store=_Mute(env.store))
    with pytest.raises(Killed):
        execute(silent, made.id, 0, context={})
    (record,) = env.store.operations()
    assert record.status is OperationStatus.RUNNING

    time.sleep(env.settings.lease_seconds + 0.5)
    result = run(env, for_table())

    settled = env.store.operation(record.id)
    assert settled.status is OperationStatus.INTERRUPTED
    assert "before it committed" in (settled.error or "")
    assert not (local_path(table.location()) / "data" / "half-written.parquet").exists()
    assert not result.verdict.failed, result.verdict.failures
    assert rows_digest(table.refresh()) == before
    assert len(data_files(table)) == 1


class _Mute:
    """A store that a dead process can no longer write outcomes to."""

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

    def renew(self, lease: Any, ttl: timedelta) -> Any:
        return lease


def test_a_commit_whose_task_died_right_after_counts_as_success(env: Environment, catalog: SqlCatalog) -> None:
    table = small_files(catalog, 6)
    assessment = assess(env, for_table(operations=(Operation.REWRITE_DATA_FILES,)))
    made = plan(env, assessment.id)
    execute(replace(env, store=_Mute(env.store)), made.id, 0, context={})
    (record,) = env.store.operations()
    assert not record.status.finished
    time.sleep(env.settings.lease_seconds + 0.5)
    assert not verdict(env, made.id, assessment.id).failed
    settled = env.store.operation(record.id)
    assert settled.status is OperationStatus.SUCCESS
    assert settled.result is not None
    assert settled.result.snapshot_after == table.refresh().current_snapshot().snapshot_id


def test_every_decision_is_told(env: Environment, catalog: SqlCatalog) -> None:
    small_files(catalog, 6)
    told: list[Event] = []
    run(replace(env, emit=told.append), scheduled())
    decided = {(event.operation, event.data["decision"]) for event in told if event.kind is EventKind.DECIDED}
    assert {operation for operation, _ in decided} == set(Operation)
    assert all(event.message for event in told)
    assert any(event.kind is EventKind.OPERATION_FINISHED and event.changed for event in told)


def test_the_table_budget_cuts_the_rest_and_says_so(env: Environment, catalog: SqlCatalog) -> None:
    small_files(catalog, 6)
    small_files(catalog, 4, name="second")
    limited = replace(env, settings=env.settings.model_copy(update={"max_tables_per_run": 1}))
    result = run(limited, scheduled())
    assert len({record.table for record in result.records}) == 1
    cut = [item for item in result.plan.items if item.disposition is Disposition.CUT]
    assert cut
    assert all(any("max_tables_per_run" in reason for reason in item.reasons) for item in cut)
    after = run(limited, scheduled(run_id="run-2"))
    assert len({record.table for record in after.records}) == 1, "the slot of the table cut stayed open"


def test_quarantined_files_come_back(env: Environment, catalog: SqlCatalog) -> None:
    table = create_table(catalog)
    append_files(table, 1)
    table.append(rows(100, 5))
    orphan = local_path(table.location()) / "data" / "orphan.parquet"
    orphan.write_bytes(b"wanted after all")
    week_ago = time.time() - 7 * 86_400
    os.utime(orphan, (week_ago, week_ago))
    careful = replace(env, policies=(policy(orphanCleanup={"quarantine": "P7D"}),))
    result = run(careful, for_table(operations=(Operation.REMOVE_ORPHAN_FILES,)))
    assert not orphan.exists()
    (record,) = result.records
    assert len(env.store.journal(record.id, JournalKind.DELETION)) == 1
    assert restore(careful, record.id) == 1
    assert orphan.read_bytes() == b"wanted after all"


def test_an_operation_that_the_catalog_cannot_take_part_in_is_refused_with_its_reason(
    env: Environment, catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_files(catalog, 6)
    client: Any = env.catalogs["lake"]
    why = "this catalog shows one snapshot only: use its own garbage collector"
    monkeypatch.setattr(client, "cannot", lambda operation: why if operation is Operation.EXPIRE_SNAPSHOTS else None)
    result = run(env, for_table())
    assert decisions(result)[Operation.EXPIRE_SNAPSHOTS] is Disposition.REFUSED
    (item,) = [item for item in result.plan.items if item.operation is Operation.EXPIRE_SNAPSHOTS]
    assert any(why in reason for reason in item.reasons)
    assert decisions(result)[Operation.REWRITE_DATA_FILES] is Disposition.RUN


def test_snapshots_that_a_rewrite_pushes_out_expire_in_the_same_run(env: Environment, catalog: SqlCatalog) -> None:
    table = small_files(catalog, 5)
    time.sleep(1.1)  # older than maxSnapshotAge
    moment = datetime.now(UTC)
    env = replace(
        env, now=lambda: moment, policies=(policy(expireSnapshots={"maxSnapshotAge": "PT1S", "retainLast": 5}),)
    )

    run(env, for_table())
    assert len(table.refresh().metadata.snapshots) == 5, "one came by the rewrite, so one went"
    again = run(env, for_table().model_copy(update={"run_id": "conf-2"}))
    assert set(decisions(again).values()) == {Disposition.NO_WORK}, [item.reasons for item in again.plan.items]


def test_the_manifests_that_a_data_rewrite_writes_are_rewritten_in_the_same_run(
    env: Environment, catalog: SqlCatalog
) -> None:
    table = create_table(catalog, partitioned=True)
    append_files(table, 1, parts=("a",))
    append_files(table, 6, start=100, parts=("b",))
    moment = datetime.now(UTC)
    env = replace(env, now=lambda: moment)
    env = replace(env, policies=(policy(expireSnapshots={}),))
    run(env, for_table(operations=(Operation.REWRITE_MANIFESTS,)))

    first = run(env, for_table().model_copy(update={"run_id": "conf-2"}))
    assert Operation.REWRITE_DATA_FILES in {record.operation for record in first.records}

    again = run(env, for_table().model_copy(update={"run_id": "conf-3"}))
    assert set(decisions(again).values()) == {Disposition.NO_WORK}, [item.reasons for item in again.plan.items]


def test_a_worker_whose_clock_is_ahead_removes_no_young_file(env: Environment, catalog: SqlCatalog) -> None:
    table = small_files(catalog, 1)
    young = local_path(table.location()) / "data" / "being-written.parquet"
    young.write_bytes(b"half of it")
    ahead = replace(env, now=lambda: datetime.now(UTC) + timedelta(days=30))
    run(ahead, for_table(operations=(Operation.REMOVE_ORPHAN_FILES,)))
    assert young.exists()
