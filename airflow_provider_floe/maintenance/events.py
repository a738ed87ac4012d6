"""What happened, for logs, metrics, assets and OpenLineage."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from airflow_provider_floe.health.report import Model, TableId
from airflow_provider_floe.stores.protocols import OperationRecord
from airflow_provider_floe.tables import Operation


class EventKind(StrEnum):
    """Kinds of events."""

    TRIGGERED = "triggered"
    RUN_REFUSED = "run refused"
    TABLE_ASSESSED = "table assessed"
    ASSESSMENT_FAILED = "assessment failed"
    POLICY_MATCHED = "policy matched"
    GATE_EVALUATED = "gate evaluated"
    DECIDED = "decided"
    OPERATION_STARTED = "operation started"
    JOB_SENT = "job sent"
    OPERATION_FINISHED = "operation finished"
    OPERATION_SETTLED = "operation settled"


class Event(Model):
    """One thing that happened.

    :ivar message: one line that explains it, with numbers; logged as it is.
    :ivar changed: the table really changed (OPERATION_FINISHED only).
    :ivar data: details by kind, JSON only: outcome, duration_seconds, policy, engine, gate, met, unmet, result, url ...
    """

    kind: EventKind
    at: datetime
    message: str
    level: int = 20
    table: TableId | None = None
    operation: Operation | None = None
    changed: bool = False
    data: dict[str, Any] = Field(default_factory=dict)


def operation_event(kind: EventKind, record: OperationRecord, at: datetime, message: str, level: int = 20) -> Event:
    """What there is to tell of an operation record.

    :param message: goes on after table and operation.
    """
    seconds = (record.finished_at - record.started_at).total_seconds() if record.finished_at else 0.0
    return Event(
        kind=kind,
        at=at,
        level=level,
        message=f"{record.table.ref()} {record.operation} {message}",
        table=record.table,
        operation=record.operation,
        changed=record.result is not None and record.result.changed,
        data={
            "operation_id": record.id,
            "plan_id": record.plan_id,
            "outcome": record.status.value,
            "policy": record.policy,
            "engine": record.engine,
            "duration_seconds": seconds,
            "result": record.result.model_dump(mode="json") if record.result else None,
            "url": record.remote_url,
        },
    )
