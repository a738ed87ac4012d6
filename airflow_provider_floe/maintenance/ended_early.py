"""Puts table runs on record that ended before any operation began: refused, or with nothing to do."""

from __future__ import annotations

import logging

from airflow_provider_floe.errors import FloeError, PolicyError
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.events import Event, EventKind
from airflow_provider_floe.maintenance.request import RunRequest
from airflow_provider_floe.planning.model import Disposition, Plan
from airflow_provider_floe.stores.protocols import OperationRecord, OperationStatus
from airflow_provider_floe.tables import Operation

_NOT_CONCERNED = (Disposition.NOT_GOVERNED, Disposition.NOT_ASKED)


def record_refusal(env: Environment, request: RunRequest, error: FloeError) -> None:
    """A run of one table that was refused before anything was touched: an event, and a record per operation asked."""
    status = OperationStatus.NO_POLICY if isinstance(error, PolicyError) else OperationStatus.SKIPPED
    env.emit(
        Event(
            kind=EventKind.RUN_REFUSED,
            at=env.now(),
            level=logging.ERROR,
            message=f"{request.mode} run {request.run_id} refused: {error}",
            table=request.table,
            data={"outcome": status.value, "error_type": type(error).__name__},
        )
    )
    if not request.dry_run:
        for operation in request.operations or tuple(Operation):
            _save(env, request, operation, status, error=str(error), error_type=type(error).__name__)


def record_no_operations(env: Environment, request: RunRequest, plan: Plan) -> None:
    """A run of one table whose plan runs nothing: a record of each operation that is governed, with the reason."""
    for item in plan.items:
        if item.disposition not in _NOT_CONCERNED:
            _save(
                env,
                request,
                item.operation,
                OperationStatus.NO_OPERATIONS,
                plan_id=plan.id,
                item_id=item.id,
                policy=item.policy,
                reason=f"{item.disposition}: {'; '.join(item.reasons)}",
            )


def _save(
    env: Environment, request: RunRequest, operation: Operation, status: OperationStatus, **fields: str | None
) -> None:
    if request.table is None:
        return
    now = env.store.now()
    env.store.save_operation(
        OperationRecord.model_validate(
            {
                "table": request.table,
                "operation": operation,
                "status": status,
                "run_id": request.run_id,
                "started_at": now,
                "finished_at": now,
                "context": request.context,
                **fields,
            }
        )
    )
