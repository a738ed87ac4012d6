"""Jobs on engines elsewhere: on record while they run, and settled by what the table says when their task died."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from harness.tables import create_table, lake, rows
from pyiceberg.table import Table
from pyiceberg.table.statistics import BlobMetadata, StatisticsFile

from airflow_provider_floe.catalogs.base import ConnectionFields
from airflow_provider_floe.catalogs.client import connect
from airflow_provider_floe.engines.base import SUMMARY_EVIDENCE, OperationRequest, OperationResult
from airflow_provider_floe.engines.capabilities import Capabilities
from airflow_provider_floe.errors import EngineUnavailable, LeaseBusy, LeaseLost
from airflow_provider_floe.health.report import TableId
from airflow_provider_floe.iceberg.statistics import statistics_detail
from airflow_provider_floe.maintenance.context import RunningOperation
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.leases import held_lease
from airflow_provider_floe.maintenance.locations import TableLocations
from airflow_provider_floe.maintenance.settings import Settings
from airflow_provider_floe.maintenance.settle import settle_table
from airflow_provider_floe.stores.open import open_store
from airflow_provider_floe.stores.protocols import OperationRecord, OperationStatus
from airflow_provider_floe.tables import Operation, TableRef

EVENTS = TableRef("lake", ("db",), "events")


@dataclass
class Elsewhere:
    """An engine that is only asked about its jobs."""

    name: str = "trino"
    answer: bool | Exception = True
    asked: list[str] = field(default_factory=list)

    def probe(self) -> Capabilities:
        raise NotImplementedError

    def execute(self, request: OperationRequest, context: object) -> OperationResult:
        raise NotImplementedError

    def cancel(self, job_id: str) -> bool:
        self.asked.append(job_id)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def table(tmp_path: Path) -> Table:
    table = create_table(lake(tmp_path))
    table.append(rows(0, 5), snapshot_properties={"trino_query_id": "q-1"})
    return table


@pytest.fixture
def engine() -> Elsewhere:
    return Elsewhere()


@pytest.fixture
def env(tmp_path: Path, table: Table, engine: Elsewhere) -> Environment:
    extra = {"catalog_kind": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db"}
    return Environment(
        store=open_store("memory://"),
        policies=(),
        catalogs={"lake": connect(ConnectionFields("lake", extra=extra))},
        engines={"trino": engine},
        settings=Settings(lease_seconds=1),
    )


def dead_record(env: Environment, query_id: str) -> OperationRecord:
    record = OperationRecord(
        table=TableId.of(EVENTS),
        operation=Operation.REWRITE_DATA_FILES,
        status=OperationStatus.COMMITTING,
        engine="trino",
        started_at=env.store.now() - timedelta(hours=1),
        lease_token="of a dead task",
        remote_job=query_id,
        commit_detail={SUMMARY_EVIDENCE: {"trino_query_id": query_id}},
    )
    env.store.save_operation(record)
    return record


def settle(env: Environment) -> None:
    with held_lease(env, EVENTS, "the next run", cancelled=lambda: False) as keeper:
        settle_table(env, EVENTS, keeper.lease)


def test_a_commit_is_found_by_what_the_engine_wrote_on_its_snapshot(
    env: Environment, engine: Elsewhere, table: Table
) -> None:
    record = dead_record(env, "q-1")
    settle(env)
    settled = env.store.operation(record.id)
    assert settled.status is OperationStatus.SUCCESS
    assert settled.result is not None
    assert settled.result.snapshot_after == table.metadata.current_snapshot_id
    assert settled.result.files_added == 1
    assert engine.asked == []


@pytest.mark.parametrize(("written", "status"), [(True, OperationStatus.SUCCESS), (False, OperationStatus.INTERRUPTED)])
def test_statistics_are_found_by_what_is_in_the_metadata_and_was_not(
    env: Environment, engine: Elsewhere, table: Table, written: bool, status: OperationStatus
) -> None:
    put_statistics(table, "before.stats")
    detail = statistics_detail(table.metadata, [1, 2])
    record = dead_record(env, "q-1").model_copy(
        update={"operation": Operation.COMPUTE_TABLE_STATS, "commit_detail": detail, "id": "statistics"}
    )
    env.store.save_operation(record)
    if written:
        put_statistics(table, "new.stats")
    settle(env)
    settled = env.store.operation(record.id)
    assert settled.status is status
    assert (settled.result is not None and "new.stats" in settled.result.message) is written


def put_statistics(table: Table, name: str) -> None:
    """Statistics of the current snapshot, as an engine would write them."""
    current = table.current_snapshot()
    assert current is not None
    kind = {"type": "apache-datasketches-theta-v1", "snapshot-id": current.snapshot_id, "sequence-number": 1}
    entry = StatisticsFile(
        **{
            "snapshot-id": current.snapshot_id,
            "statistics-path": f"{table.location()}/metadata/{name}",
            "file-size-in-bytes": 100,
            "file-footer-size-in-bytes": 10,
            "blob-metadata": [BlobMetadata(**{**kind, "fields": [column]}) for column in (1, 2)],
        }
    )
    with table.update_statistics() as update:
        update.set_statistics(entry)


def test_a_job_without_a_trace_is_cancelled_before_the_next_run(env: Environment, engine: Elsewhere) -> None:
    record = dead_record(env, "q-2")
    settle(env)
    assert engine.asked == ["q-2"]
    assert env.store.operation(record.id).status is OperationStatus.INTERRUPTED


@pytest.mark.parametrize("answer", [False, EngineUnavailable("Trino does not answer")])
def test_nothing_runs_beside_a_job_that_may_still_run(
    env: Environment, engine: Elsewhere, answer: bool | Exception
) -> None:
    engine.answer = answer
    record = dead_record(env, "q-2")
    with pytest.raises(LeaseBusy, match="q-2 on engine trino"):
        settle(env)
    assert env.store.operation(record.id).status is OperationStatus.COMMITTING


def test_the_jobs_id_is_on_record_while_the_lease_is_ours(env: Environment) -> None:
    with held_lease(env, EVENTS, "this run", cancelled=lambda: False) as keeper:
        record = OperationRecord(
            table=TableId.of(EVENTS),
            operation=Operation.REWRITE_DATA_FILES,
            status=OperationStatus.RUNNING,
            started_at=env.store.now(),
        )
        env.store.save_operation(record)
        context = RunningOperation(env, record, keeper, TableLocations(env), deadline=None, cancelled=lambda: False)
        context.remote_job("q-3")
        assert env.store.operation(record.id).remote_job == "q-3"
        env.store.release(keeper.lease)
        with pytest.raises(LeaseLost):
            context.remote_job("q-4")
    assert env.store.operation(record.id).remote_job == "q-3"
