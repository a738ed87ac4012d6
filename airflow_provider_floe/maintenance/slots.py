"""Put the answer to a due slot on record once an operation has ended."""

from __future__ import annotations

from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.stores.protocols import OperationRecord, ScheduleExecution, SlotOutcome


def record_slot(env: Environment, record: OperationRecord, outcome: SlotOutcome, reason: str) -> None:
    """Record the slot that the operation answered; nothing outside scheduled runs."""
    if record.slot is None or record.policy is None:
        return
    env.store.record_slot(
        ScheduleExecution(
            table=record.table,
            operation=record.operation,
            policy=record.policy,
            slot=record.slot,
            outcome=outcome,
            reason=reason,
            run_id=record.run_id or "",
            recorded_at=env.store.now(),
        )
    )
