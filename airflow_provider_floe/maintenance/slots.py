"""What becomes of a due slot, and putting that on record."""

from __future__ import annotations

from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.planning.model import Disposition, GateName, PlanItem
from airflow_provider_floe.stores.protocols import OperationRecord, ScheduleExecution, SlotOutcome

_DECIDED = {
    Disposition.NO_WORK: SlotOutcome.NOTHING_TO_DO,
    Disposition.REFUSED: SlotOutcome.REFUSED,
    Disposition.CUT: SlotOutcome.CUT,
    Disposition.NEVER_FITS: SlotOutcome.CUT,
    Disposition.BLOCKED: SlotOutcome.BLOCKED,
    Disposition.UNAVAILABLE: SlotOutcome.BLOCKED,
}


def decided_outcome(item: PlanItem) -> SlotOutcome | None:
    """The answer that a plan gives to a due slot; None where it leaves that to the execution, or there is none."""
    if any(gate.gate is GateName.THROTTLE and gate.passed is False for gate in item.gates):
        return SlotOutcome.THROTTLED
    return _DECIDED.get(item.disposition)


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
