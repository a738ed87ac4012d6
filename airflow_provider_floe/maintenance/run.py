"""A whole run in one process: assess, plan, execute, verdict. For table runs, the operator and the command line."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_floe.maintenance.assess import assess
from airflow_provider_floe.maintenance.ended_early import record_no_operations
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.execute import execute
from airflow_provider_floe.maintenance.plan import plan
from airflow_provider_floe.maintenance.request import RunRequest, RunResult
from airflow_provider_floe.maintenance.verdict import verdict
from airflow_provider_floe.stores.protocols import OperationRecord


def run(env: Environment, request: RunRequest, *, cancelled: Callable[[], bool] = lambda: False) -> RunResult:
    """Carry out a run to its end; a dry run stops after the plan.

    :raises FloeError: see :func:`~airflow_provider_floe.maintenance.assess.assess`; failures of single
        operations are in the result's verdict instead.
    """
    assessment = assess(env, request)
    made = plan(env, assessment.id)
    records: list[OperationRecord] = []
    if not request.dry_run:
        if not made.batches:
            record_no_operations(env, request, made)
        for batch in range(len(made.batches)):
            records += execute(env, made.id, batch, context=request.context, cancelled=cancelled).records
    return RunResult(
        assessment=assessment,
        plan=made,
        records=tuple(records),
        verdict=verdict(env, made.id, assessment.id),
    )
