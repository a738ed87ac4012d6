"""Small documents to put into a Floe store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_provider_floe.engines.base import OperationResult
from airflow_provider_floe.health.report import HealthReport, ScanMode, TableFacts, TableId, TableMetrics
from airflow_provider_floe.planning.model import Disposition, Estimate, Plan, PlanItem, RunMode
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.stores.protocols import (
    FloeStore,
    OperationRecord,
    OperationStatus,
    ScheduleExecution,
    SlotOutcome,
)
from airflow_provider_floe.tables import Operation, TableRef

TABLE = TableRef("prod", ("sales", "eu.west"), "orders")
OTHER = TableRef("prod", ("sales",), "orders")
EXPIRE = Operation.EXPIRE_SNAPSHOTS
NOON = datetime(2026, 3, 29, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def policy(name: str, pattern: str = "prod.sales.*") -> Policy:
    return Policy.model_validate({"name": name, "tablePattern": pattern, "expireSnapshots": {"retainLast": 3}})


def report(assessed_at: datetime, table: TableRef = TABLE) -> HealthReport:
    return HealthReport(
        table=TableId.of(table),
        assessed_at=assessed_at,
        scan_mode=ScanMode.SCAN,
        facts=TableFacts(uuid="u", location="s3://b/t", metadata_location="s3://b/t/m.json", format_version=2),
        metrics=TableMetrics(snapshot_count=4, file_size_histogram={20: 7}),
    )


def plan(*bytes_in: int, created_at: datetime = NOON, cut: int = 0) -> Plan:
    """A plan with one RUN item for each estimate, and one that the budget cut."""
    items = [_item(size, Disposition.RUN) for size in bytes_in]
    return Plan(run_id="r", mode=RunMode.SCHEDULED, created_at=created_at, items=(*items, _item(cut, Disposition.CUT)))


def _item(bytes_in: int, disposition: Disposition) -> PlanItem:
    return PlanItem(
        table=TableId.of(TABLE),
        operation=EXPIRE,
        disposition=disposition,
        reasons=("120 snapshots >= 100",),
        estimate=Estimate(bytes_in=bytes_in),
    )


def record(
    status: OperationStatus = OperationStatus.RUNNING,
    started_at: datetime = NOON,
    *,
    changed: bool | None = None,
    table: TableRef = TABLE,
    **fields: Any,
) -> OperationRecord:
    fields.setdefault("operation", EXPIRE)
    if status.finished:
        fields.setdefault("finished_at", started_at + MINUTE)
    if changed is not None:
        fields["result"] = OperationResult(changed=changed, message="")
    return OperationRecord(table=TableId.of(table), status=status, started_at=started_at, **fields)


def execution(slot: datetime, outcome: SlotOutcome, reason: str = "", table: TableRef = TABLE) -> ScheduleExecution:
    return ScheduleExecution(
        table=TableId.of(table),
        operation=EXPIRE,
        policy="p",
        slot=slot,
        outcome=outcome,
        reason=reason,
        run_id="r",
        recorded_at=slot,
    )


def wait_until_after(store: FloeStore, moment: datetime) -> None:
    """Until the store's own clock has passed the moment."""
    while store.now() <= moment:
        pass
