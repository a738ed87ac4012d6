"""A whole run in one process: assess, plan, execute, verdict. For table runs, the operator and the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from airflow_provider_floe.maintenance.assess import assess
from airflow_provider_floe.maintenance.ended_early import record_no_operations
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.execute import execute
from airflow_provider_floe.maintenance.plan import plan
from airflow_provider_floe.maintenance.request import RunRequest, RunResult, RunVerdict, Waiting
from airflow_provider_floe.maintenance.verdict import verdict
from airflow_provider_floe.planning.model import Plan
from airflow_provider_floe.stores.protocols import OperationRecord, OperationStatus


def run(
    env: Environment,
    request: RunRequest,
    *,
    cancelled: Callable[[], bool] = lambda: False,
    defer: bool = False,
    resumed: str | None = None,
) -> RunResult:
    """Carry out a run to its end; a dry run stops after the plan.

    A try whose job elsewhere was left behind by an earlier one goes on with the plan of that.

    :param defer: see :func:`~airflow_provider_floe.maintenance.execute.execute`.
    :param resumed: see there.
    :raises FloeError: see :func:`~airflow_provider_floe.maintenance.assess.assess`; failures of single
        operations are in the result's verdict instead.
    """
    left = _left_behind(env, request, resumed)
    assessment = env.store.assessment(left.assessment_id) if left else assess(env, request)
    made = left.plan if left else plan(env, assessment.id)
    records: list[OperationRecord] = []
    before: list[OperationRecord] = []
    waiting: Waiting | None = None
    if not request.dry_run:
        if not made.batches:
            record_no_operations(env, request, made)
        for batch in range(len(made.batches)):
            done = execute(
                env, made.id, batch, context=request.context, cancelled=cancelled, defer=defer, resumed=resumed
            )
            records += done.records
            before += done.before
            if waiting := done.waiting:
                break
    if waiting:
        so_far = RunVerdict(failed=False, summary=(f"job {waiting.job_id} goes on elsewhere",))
        return RunResult(assessment=assessment, plan=made, records=tuple(records), verdict=so_far, waiting=waiting)
    return RunResult(
        assessment=assessment,
        plan=made,
        records=tuple(records),
        before=tuple(before),
        verdict=verdict(env, made.id, assessment.id),
    )


@dataclass(frozen=True)
class _Left:
    plan: Plan
    assessment_id: str


def _left_behind(env: Environment, request: RunRequest, resumed: str | None) -> _Left | None:
    """The plan of an earlier try of the same task, if a job of it may still run elsewhere."""
    if resumed is not None:
        found = [env.store.operation(resumed)]
    elif request.table is None or not request.context:
        return None
    else:
        unfinished = (OperationStatus.COMMITTING,)
        found = env.store.operations(table=request.table.ref(), statuses=unfinished, limit=1_000)
    for record in found:
        ours = all(record.context.get(key) == request.context.get(key) for key in _TASK)
        if record.remote_job is not None and record.plan_id is not None and (ours or record.id == resumed):
            plan = env.store.plan(record.plan_id)
            if plan.assessment_id is not None:
                return _Left(plan, plan.assessment_id)
    return None


_TASK = ("dag_id", "run_id", "task_id", "map_index")
