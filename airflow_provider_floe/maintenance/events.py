"""What happened, for logs, metrics, assets and OpenLineage."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from airflow_provider_floe.health.report import Model, TableId
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
    OPERATION_FINISHED = "operation finished"
    OPERATION_SETTLED = "operation settled"


class Event(Model):
    """One thing that happened.

    :ivar message: one line that explains it, with numbers; logged as it is.
    :ivar changed: the table really changed (OPERATION_FINISHED only).
    :ivar data: details by kind, JSON only: outcome, duration_seconds, policy, engine, gate, met, unmet, result ...
    """

    kind: EventKind
    at: datetime
    message: str
    level: int = 20
    table: TableId | None = None
    operation: Operation | None = None
    changed: bool = False
    data: dict[str, Any] = Field(default_factory=dict)
