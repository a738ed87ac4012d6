"""Planning: from reports, policies, history, capabilities and a clock to one decision per table and operation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from airflow_provider_floe.health.report import TableId
from airflow_provider_floe.planning.batches import make_batches, make_helpers
from airflow_provider_floe.planning.budgets import spend
from airflow_provider_floe.planning.candidates import candidacy
from airflow_provider_floe.planning.engine_choice import choose_engine
from airflow_provider_floe.planning.estimates import estimate
from airflow_provider_floe.planning.gates import GateInputs, blocking_gate, evaluate_gates
from airflow_provider_floe.planning.model import (
    Disposition,
    DueState,
    GateDecision,
    GateName,
    OperationHistory,
    Plan,
    PlanItem,
    PlanRequest,
    TableInputs,
)
from airflow_provider_floe.planning.score import Score, debt_score
from airflow_provider_floe.policies.model import OperationSettings, Policy
from airflow_provider_floe.tables import DELETE_FILE_OPERATIONS, RUN_ORDER, Operation
from airflow_provider_floe.text import time_text

_LEADERS = {
    Operation.REWRITE_MANIFESTS: DELETE_FILE_OPERATIONS,
    Operation.EXPIRE_SNAPSHOTS: (*DELETE_FILE_OPERATIONS, Operation.REWRITE_MANIFESTS),
}
"""Who gives an operation work by running before it: a rewrite writes manifests, and one more snapshot."""


def plan(request: PlanRequest) -> Plan:
    """Decide on every operation of every table.

    A pure function of the request, but for the plan's own id: the order in which tables are given does not matter.
    Items stand by table name, then in run order.

    :raises ValueError: when a table stands twice in the request.
    """
    tables = sorted(request.tables, key=lambda table: str(table.report.table.ref()))
    for before, after in pairwise(tables):
        if before.report.table == after.report.table:
            raise ValueError(f"table {after.report.table.ref()} stands twice in the plan request")
    documents = _Documents()
    items = [item for table in tables for item in _table_items(request, table, documents)]
    decided, budgets = spend(items, request.budgets)
    batches = make_batches(decided, request.batching)
    return Plan(
        assessment_id=request.assessment_id,
        run_id=request.run_id,
        mode=request.mode,
        created_at=request.now,
        force=request.force,
        dry_run=request.dry_run,
        items=decided,
        failures=request.failures,
        budgets=budgets,
        batches=batches,
        helpers=make_helpers(decided, request.batching, len(batches), request.capabilities),
    )


def item_id(request: PlanRequest, table: TableId, operation: Operation) -> str:
    """The id of an item: the same whenever this request is planned, another when the run is planned again later.

    The time is part of it, because a cleared run plans anew under its old run id, and both plans are kept.
    """
    parts = (request.run_id, request.now.isoformat(), str(table.ref()), operation.value)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


@dataclass(slots=True)
class _Documents:
    """Wire forms and revisions, made once per policy rather than once per table."""

    revisions: dict[str, str] = field(default_factory=dict)
    settings: dict[tuple[str, Operation], dict[str, Any]] = field(default_factory=dict)

    def revision(self, policy: Policy) -> str:
        if policy.name not in self.revisions:
            self.revisions[policy.name] = policy.revision
        return self.revisions[policy.name]

    def wire(self, policy: Policy, operation: Operation, settings: OperationSettings) -> dict[str, Any]:
        key = (policy.name, operation)
        if key not in self.settings:
            self.settings[key] = settings.wire()
        return self.settings[key]


def _table_items(request: PlanRequest, table: TableInputs, documents: _Documents) -> list[PlanItem]:
    score = debt_score(table.report, table.history, request.now, request.weights)
    items: list[PlanItem] = []
    for operation in RUN_ORDER:
        running = [item.operation for item in items if item.disposition is Disposition.RUN]
        follows = next((leader for leader in _LEADERS.get(operation, ()) if leader in running), None)
        items.append(_item(request, table, operation, score, documents, follows))
    return items


def _item(
    request: PlanRequest,
    table: TableInputs,
    operation: Operation,
    score: Score,
    documents: _Documents,
    follows: Operation | None,
) -> PlanItem:
    governance = table.governance.get(operation)
    policy = governance.policy if governance else None
    settings = policy.settings(operation) if policy else None
    base = PlanItem(
        id=item_id(request, table.report.table, operation),
        table=table.report.table,
        operation=operation,
        disposition=Disposition.NOT_GOVERNED,
        reasons=(governance.explanation if governance else "no policy governs it",),
        governance=governance.explanation if governance else "",
        table_uuid=table.report.facts.uuid,
        snapshot_id=table.report.facts.snapshot_id,
    )
    if request.operations is not None and operation not in request.operations:
        named = ", ".join(sorted(request.operations, key=RUN_ORDER.index))
        return _decided(base, Disposition.NOT_ASKED, f"the run asks for {named} only")
    if policy is None or settings is None:
        return base
    schedule = policy.schedule(operation)
    governed = base.model_copy(
        update={
            "policy": policy.name,
            "policy_revision": documents.revision(policy),
            "settings": documents.wire(policy, operation, settings),
            "schedule_priority": schedule.priority if schedule else 0,
            "timeout_hours": schedule.timeout if schedule else None,
            "score": score.points,
            "score_terms": score.terms,
        }
    )
    if not settings.enabled:
        off = f"policy {policy.name} has {operation.policy_key}.enabled=false"
        return _decided(governed, Disposition.SWITCHED_OFF, off)
    due = table.due.get(operation, DueState(scheduled=False))
    slot = due.latest_slot if request.mode.looks_at_schedule and due.due else None
    work = table.report.work.get(operation)
    decided = _decide(
        request,
        table,
        governed.model_copy(
            update={
                "slot": slot,
                "estimate": estimate(operation, table.report),
                "follows": follows if work is not None and work.found is False else None,
            }
        ),
        policy,
        settings,
        due,
    )
    answered = _slots_answered(due) if slot is not None else ()
    return _decided(decided, decided.disposition, *decided.reasons, *answered)


def _slots_answered(due: DueState) -> tuple[str, ...]:
    """Names the open slots beside the latest one, so that none goes by without a word."""
    if due.latest_slot is None:
        return ()
    latest = time_text(due.latest_slot)
    if due.consumed_slot is None:
        return (f"answers every slot up to {latest}: none was consumed before",)
    if due.first_open_slot is not None and due.first_open_slot < due.latest_slot:
        return (f"answers every open slot from {time_text(due.first_open_slot)} to {latest}",)
    return ()


def _decide(
    request: PlanRequest,
    table: TableInputs,
    item: PlanItem,
    policy: Policy,
    settings: OperationSettings,
    due: DueState,
) -> PlanItem:
    operation, report = item.operation, table.report
    history = table.history.get(operation, OperationHistory(known=False))
    chosen = candidacy(
        operation,
        policy=policy,
        report=report,
        history=table.history,
        now=request.now,
        named=request.operations is not None,
        orphan_interval_days=request.orphan_interval_days,
        follows=item.follows,
    )
    if chosen.disposition is not None:
        return _decided(item, chosen.disposition, *chosen.reasons)
    gates = evaluate_gates(
        GateInputs(
            operation=operation,
            mode=request.mode,
            now=request.now,
            due=due,
            history=history,
            conditions=policy.conditions(operation),
            metrics=report.metrics,
            feedback=request.feedback,
            force=request.force,
        )
    )
    engine = choose_engine(
        operation,
        policy,
        settings,
        report.facts,
        item.estimate.bytes_in,
        request.capabilities,
        request.unavailable,
        catalog=report.table.catalog,
    )
    item = item.model_copy(
        update={
            "gates": gates,
            "engine": engine.engine,
            "engine_reason": engine.reason,
            "ignored_settings": engine.ignored,
        }
    )
    block = blocking_gate(gates)
    if block is not None:
        disposition = Disposition.NOT_DUE if block.gate is GateName.SCHEDULE else Disposition.BLOCKED
        return _decided(item, disposition, _block_text(block), *chosen.reasons)
    if engine.engine is None:
        disposition = Disposition.UNAVAILABLE if engine.waits else Disposition.REFUSED
        return _decided(item, disposition, engine.reason, *engine.refusals, *chosen.reasons)
    return _decided(item, Disposition.RUN, *chosen.reasons)


def _block_text(block: GateDecision) -> str:
    if block.gate is GateName.SCHEDULE:
        return block.reason
    return f"blocked by gate {block.gate}: {block.reason}"


def _decided(item: PlanItem, disposition: Disposition, *reasons: str) -> PlanItem:
    return item.model_copy(update={"disposition": disposition, "reasons": reasons})
