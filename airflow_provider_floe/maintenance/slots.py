"""Put the answer to a due slot on record once an operation has ended."""

from __future__ import annotations

from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.stores.protocols import OperationRecord, ScheduleExecution, SlotOutcome


def record_slot(env: Environment, record: OperationRecord, outcome: SlotOutcome, reason: str) -> None:
    """Record the slot that the operation's plan item answered; nothing outside scheduled runs."""
    if record.plan_id is None or record.item_id is None or record.policy is None:
        return
    try:
        item = env.store.plan(record.plan_id).item(record.item_id)
    except KeyError:
        return
    if item.slot is None:
        return
    env.store.record_slot(
        ScheduleExecution(
            table=record.table,
            operation=record.operation,
            policy=record.policy,
            slot=item.slot,
            outcome=outcome,
            reason=reason,
            run_id=record.run_id or "",
            recorded_at=env.store.now(),
        )
    )
