"""Plan: decide for every assessed table and operation, reserve the budget, keep the plan."""

from __future__ import annotations

import logging
from dataclasses import replace

from airflow_provider_floe.engines.capabilities import Capabilities
from airflow_provider_floe.errors import FloeError
from airflow_provider_floe.health.report import Assessment, HealthReport
from airflow_provider_floe.maintenance.assess import governance_of
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.events import Event, EventKind
from airflow_provider_floe.maintenance.request import RunRequest
from airflow_provider_floe.maintenance.slots import decided_outcome
from airflow_provider_floe.planning import planner
from airflow_provider_floe.planning.due import due_state
from airflow_provider_floe.planning.explain import explain_item
from airflow_provider_floe.planning.model import (
    Batching,
    Budgets,
    Disposition,
    DueState,
    Feedback,
    Plan,
    PlanItem,
    PlanRequest,
    ScoreWeights,
    TableInputs,
)
from airflow_provider_floe.stores.protocols import ScheduleExecution
from airflow_provider_floe.tables import Operation

log = logging.getLogger(__name__)

_RESERVATION_ATTEMPTS = 5


def plan(env: Environment, assessment_id: str, *, max_tasks_per_table: int = 1) -> Plan:
    """Plan an assessment; the plan is saved, and each of its decisions emitted.

    A dry run is the same code, stopped before budget and slots are written.

    :param max_tasks_per_table: see :class:`~airflow_provider_floe.planning.model.Batching`.
    :raises FloeError: when other plans took the byte budget at every attempt.
    """
    assessment = env.store.assessment(assessment_id)
    request = RunRequest.model_validate(assessment.context["request"])
    arguments = _arguments(env, assessment, request, max_tasks_per_table)
    made = _reserve(env, arguments)
    for item in made.items:
        _tell(env, item)
    if not request.dry_run:
        _record_slots(env, made)
    return made


def _arguments(env: Environment, assessment: Assessment, request: RunRequest, max_tasks_per_table: int) -> PlanRequest:
    settings = env.settings
    return PlanRequest(
        run_id=request.run_id,
        mode=request.mode,
        now=env.now(),
        tables=tuple(_inputs(env, request, report) for report in assessment.reports),
        capabilities={
            name: Capabilities.model_validate(found) for name, found in assessment.context["capabilities"].items()
        },
        unavailable=assessment.context["unavailable"],
        failures=assessment.failures,
        operations=frozenset(request.operations) if request.operations is not None else None,
        force=request.force,
        dry_run=request.dry_run,
        budgets=Budgets(
            max_tables_per_run=settings.max_tables_per_run,
            max_operations_per_run=settings.max_operations_per_run,
            max_bytes_per_hour=settings.max_bytes_per_hour,
        ),
        weights=ScoreWeights(**settings.score_weights),
        feedback=Feedback(
            backoff_after_failures=settings.backoff_after_failures,
            backoff_hours=settings.backoff_hours,
            throttle_after_zero_changes=settings.throttle_after_zero_changes,
            throttle_min_hours=settings.throttle_min_hours,
        ),
        batching=Batching(
            max_batches=settings.max_batches,
            target_bytes=settings.batch_bytes,
            max_tables=settings.batch_tables,
            max_tasks_per_table=max_tasks_per_table,
        ),
        orphan_interval_days=settings.orphan_interval_days,
        assessment_id=assessment.id,
    )


def _inputs(env: Environment, request: RunRequest, report: HealthReport) -> TableInputs:
    table = report.table.ref()
    governance = governance_of(env, request, table, report.facts.properties)
    due: dict[Operation, DueState] = {}
    if request.mode.looks_at_schedule:
        now = env.now()
        for operation, found in governance.items():
            if found.policy is not None:
                due[operation] = due_state(
                    found.policy.schedule(operation),
                    env.store.consumed_slot(table, operation),
                    request.run_after or now,
                    now,
                    env.settings.default_timezone,
                )
    return TableInputs(report=report, governance=governance, history=env.store.history(table), due=due)


def _reserve(env: Environment, arguments: PlanRequest) -> Plan:
    limit = arguments.budgets.max_bytes_per_hour
    for _ in range(_RESERVATION_ATTEMPTS):
        left = max(0, limit - env.store.bytes_reserved()) if limit else None
        made = planner.plan(replace(arguments, budgets=replace(arguments.budgets, bytes_left_this_hour=left)))
        if made.dry_run:
            env.store.save_plan(made)
            return made
        if env.store.reserve_and_save(made, max_bytes=limit):
            return made
        log.info("another plan took part of the byte budget meanwhile: planning again")
    raise FloeError(
        f"other plans took the byte budget ([floe] max_bytes_per_hour = {limit}) at each of "
        f"{_RESERVATION_ATTEMPTS} attempts: the next run tries again"
    )


def _tell(env: Environment, item: PlanItem) -> None:
    for gate in item.gates:
        env.emit(
            Event(
                kind=EventKind.GATE_EVALUATED,
                at=env.now(),
                level=logging.DEBUG,
                message=f"{item.table.ref()} {item.operation}: gate {gate.gate}: {gate.reason}",
                table=item.table,
                operation=item.operation,
                data={
                    "gate": gate.gate.value,
                    "passed": gate.passed,
                    "forced": gate.forced,
                    "met": list(gate.met),
                    "unmet": list(gate.unmet),
                },
            )
        )
    env.emit(
        Event(
            kind=EventKind.DECIDED,
            at=env.now(),
            level=logging.DEBUG if item.disposition is Disposition.NOT_GOVERNED else logging.INFO,
            message="\n".join(explain_item(item)),
            table=item.table,
            operation=item.operation,
            data={"decision": item.disposition.value, "policy": item.policy},
        )
    )


def _record_slots(env: Environment, made: Plan) -> None:
    """Put on record what became of each due slot that will not be executed."""
    with env.store.transaction():
        for item in made.items:
            outcome = decided_outcome(item)
            if item.slot is None or item.policy is None or outcome is None:
                continue
            env.store.record_slot(
                ScheduleExecution(
                    table=item.table,
                    operation=item.operation,
                    policy=item.policy,
                    slot=item.slot,
                    outcome=outcome,
                    reason="; ".join(item.reasons),
                    run_id=made.run_id,
                    recorded_at=env.now(),
                )
            )
