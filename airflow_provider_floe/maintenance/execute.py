"""Execute: carry out one batch of a plan, table by table, each under its lease and on record."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from itertools import groupby
from typing import Any

from airflow_provider_floe.engines.base import OperationRequest, OperationResult
from airflow_provider_floe.errors import (
    CommitOutcomeUnknown,
    FloeError,
    LeaseBusy,
    LeaseLost,
    OperationCancelled,
    UnsafeOperation,
)
from airflow_provider_floe.health.report import new_id
from airflow_provider_floe.maintenance.context import RunningOperation
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.events import Event, EventKind
from airflow_provider_floe.maintenance.leases import LeaseKeeper, held_lease
from airflow_provider_floe.maintenance.locations import TableLocations
from airflow_provider_floe.maintenance.request import BatchResult
from airflow_provider_floe.maintenance.settle import settle_table
from airflow_provider_floe.maintenance.slots import record_slot
from airflow_provider_floe.planning.model import Plan, PlanItem
from airflow_provider_floe.policies.model import SETTINGS_MODELS
from airflow_provider_floe.stores.protocols import OperationRecord, OperationStatus, SlotOutcome
from airflow_provider_floe.tables import TableRef

log = logging.getLogger(__name__)

_DONE = (
    OperationStatus.SUCCESS,
    OperationStatus.FAILED,
    OperationStatus.PARTIAL_FAILURE,
    OperationStatus.SKIPPED,
)


def execute(
    env: Environment,
    plan_id: str,
    batch: int,
    *,
    context: Mapping[str, Any],
    cancelled: Callable[[], bool] = lambda: False,
) -> BatchResult:
    """Run one batch of a saved plan. Failures end in the records; only cancellation and store errors are raised.

    Running the same batch again runs only what is unfinished.

    :param context: where it runs (dag_id, run_id, task_id, map_index, try_number), for the records.
    :param cancelled: asked between side effects; True stops the batch.
    :raises OperationCancelled: when the task was cancelled; what was done stays on record.
    """
    plan = env.store.plan(plan_id)
    items = [plan.item(item_id) for item_id in plan.batches[batch]]
    locations = TableLocations(env)
    records: list[OperationRecord] = []
    for table_id, group in groupby(items, key=lambda item: item.table):
        run = _TableRun(env, plan, table_id.ref(), locations, context, cancelled)
        records += run.run(list(group))
    told = {record.item_id for record in records}
    skipped = tuple(item.id for item in items if item.id not in told)
    return BatchResult(plan_id=plan_id, batch=batch, records=tuple(records), skipped=skipped)


class _TableRun:
    """The items of one table, in order, under one lease."""

    def __init__(
        self,
        env: Environment,
        plan: Plan,
        table: TableRef,
        locations: TableLocations,
        context: Mapping[str, Any],
        cancelled: Callable[[], bool],
    ) -> None:
        self.env = env
        self.plan = plan
        self.table = table
        self.locations = locations
        self.context = {**context, "host": socket.gethostname(), "pid": os.getpid()}
        self.cancelled = cancelled

    def run(self, items: Sequence[PlanItem]) -> list[OperationRecord]:
        """Run the items that are not done; the first one that does not succeed stops those after it."""
        items = self._unfinished(items)
        if not items:
            return []
        records: list[OperationRecord] = []
        try:
            with held_lease(self.env, self.table, self._holder(), cancelled=self.cancelled) as keeper:
                try:
                    settle_table(self.env, self.table, keeper.lease)
                except LeaseBusy:
                    raise
                except FloeError as error:
                    return self._not_settled(items, error)
                # another try of this batch, dead by now or not, may have had the lease while we waited for it
                items = self._unfinished(items)
                for position, item in enumerate(items):
                    record = self._run_item(item, keeper)
                    records.append(record)
                    if record.status not in (OperationStatus.SUCCESS, OperationStatus.SKIPPED):
                        reason = f"not run, because {record.operation} ended {record.status}"
                        records += [self._skip(later, reason, SlotOutcome.BLOCKED) for later in items[position + 1 :]]
                        break
        except LeaseBusy as error:
            records += [self._skip(item, str(error), SlotOutcome.BUSY) for item in items]
        return records

    def _unfinished(self, items: Sequence[PlanItem]) -> list[PlanItem]:
        records = self.env.store.operations(table=self.table, plan_id=self.plan.id, statuses=_DONE, limit=100_000)
        done = {record.item_id for record in records}
        return [item for item in items if item.id not in done]

    def _not_settled(self, items: Sequence[PlanItem], error: FloeError) -> list[OperationRecord]:
        first, *later = items
        record = self._failed(first, self._new_record(first, OperationStatus.RUNNING), error)
        reason = f"not run, because {record.operation} ended {record.status}"
        return [record, *(self._skip(item, reason, SlotOutcome.BLOCKED) for item in later)]

    def _holder(self) -> str:
        where = "/".join(str(self.context[key]) for key in ("dag_id", "run_id", "task_id") if self.context.get(key))
        return f"{where or self.plan.run_id} on {self.context['host']} (pid {self.context['pid']})"

    def _new_record(self, item: PlanItem, status: OperationStatus, **fields: Any) -> OperationRecord:
        record = OperationRecord(
            id=new_id(),
            table=item.table,
            operation=item.operation,
            status=status,
            plan_id=self.plan.id,
            item_id=item.id,
            run_id=self.plan.run_id,
            slot=item.slot,
            policy=item.policy,
            engine=item.engine,
            reason="; ".join(item.reasons),
            started_at=self.env.store.now(),
            context=self.context,
            **fields,
        )
        self.env.store.save_operation(record)
        return record

    def _skip(self, item: PlanItem, reason: str, outcome: SlotOutcome) -> OperationRecord:
        record = self._new_record(
            item, OperationStatus.SKIPPED, finished_at=self.env.store.now(), error=reason, error_type="Skipped"
        )
        self.env.store.settle_bytes(item.id, 0)
        record_slot(self.env, record, outcome, reason)
        self._tell(EventKind.OPERATION_FINISHED, record, f"skipped: {reason}", logging.WARNING)
        return record

    def _run_item(self, item: PlanItem, keeper: LeaseKeeper) -> OperationRecord:
        answered = self.env.store.consumed_slot(self.table, item.operation) if item.slot else None
        if item.slot and answered and answered >= item.slot:
            reason = f"its slot {item.slot:%Y-%m-%d %H:%M} UTC was answered by another run since the plan"
            return self._skip(item, reason, SlotOutcome.BLOCKED)
        record = self._new_record(item, OperationStatus.RUNNING, lease_token=keeper.lease.token)
        self._tell(EventKind.OPERATION_STARTED, record, f"started on engine {item.engine}: {record.reason}")
        try:
            result = self._execute(item, record, keeper)
        except Exception as error:
            return self._failed(item, record, error)
        except BaseException as error:  # SystemExit and the like: the task is being killed
            told = f"the task was stopped ({type(error).__name__})"
            committing = self.env.store.operation(record.id).status is OperationStatus.COMMITTING
            self._failed(item, record, (CommitOutcomeUnknown if committing else OperationCancelled)(told))
            raise
        if item.follows is not None and not result.changed:
            return self._finish(
                item, record, OperationStatus.SKIPPED, SlotOutcome.NOTHING_TO_DO, result=result, message=result.message
            )
        partial = bool(result.details.get("failed_commits"))
        status = OperationStatus.PARTIAL_FAILURE if partial else OperationStatus.SUCCESS
        return self._finish(item, record, status, SlotOutcome.EXECUTED, result=result, message=result.message)

    def _execute(self, item: PlanItem, record: OperationRecord, keeper: LeaseKeeper) -> OperationResult:
        engine = self.env.engines[item.engine or ""]
        settings = SETTINGS_MODELS[item.operation].model_validate(item.settings)
        self._check_unchanged(item)
        deadline = self.env.now() + timedelta(hours=item.timeout_hours) if item.timeout_hours else None
        operation_context = RunningOperation(
            self.env, record, keeper, self.locations, deadline=deadline, cancelled=self.cancelled
        )
        request = OperationRequest(
            operation_id=record.id,
            table=self.table,
            operation=item.operation,
            settings=settings,
            ignored_settings=item.ignored_settings,
            deadline=deadline,
        )
        return engine.execute(request, operation_context)

    def _check_unchanged(self, item: PlanItem) -> None:
        """Refuse a table that is no longer the one planned for, or whose owner opted out since."""
        table = self.env.catalog(self.table.catalog).load(self.table)
        uuid = str(table.metadata.table_uuid)
        if item.table_uuid is not None and uuid != item.table_uuid:
            raise UnsafeOperation(
                f"{self.table} was dropped and created again since the plan (uuid {item.table_uuid}, now {uuid}): "
                "plan again"
            )
        for name in ("floe.enabled", f"floe.{item.operation}.enabled", f"floe.{item.operation.policy_key}.enabled"):
            if table.properties.get(name, "true").lower() == "false":
                raise UnsafeOperation(f"{self.table}: its owner set {name}=false since the plan")

    def _failed(self, item: PlanItem, record: OperationRecord, error: Exception) -> OperationRecord:
        if isinstance(error, CommitOutcomeUnknown):
            status, outcome = OperationStatus.UNKNOWN, SlotOutcome.UNKNOWN
        elif isinstance(error, LeaseLost | OperationCancelled):
            status, outcome = OperationStatus.INTERRUPTED, SlotOutcome.INTERRUPTED
        else:
            status, outcome = OperationStatus.FAILED, SlotOutcome.FAILED
        if not isinstance(error, FloeError):
            log.exception("%s on %s failed", item.operation, self.table)
        message = str(error) if isinstance(error, FloeError) else f"{type(error).__name__}: {error}"
        return self._finish(
            item, record, status, outcome, message=message, error=message, error_type=type(error).__name__
        )

    def _finish(
        self,
        item: PlanItem,
        record: OperationRecord,
        status: OperationStatus,
        outcome: SlotOutcome,
        *,
        message: str,
        **changes: Any,
    ) -> OperationRecord:
        try:
            with self.env.store.transaction():  # a death in between would leave the slot to be run again
                finished = self.env.store.transition(
                    record.id,
                    expect=(OperationStatus.RUNNING, OperationStatus.COMMITTING),
                    to=status,
                    finished_at=self.env.store.now(),
                    **changes,
                )
                if finished.result is not None:
                    self.env.store.settle_bytes(item.id, finished.result.bytes_rewritten)
                record_slot(self.env, finished, outcome, message)
        except LeaseLost:  # our lease ran out meanwhile, and another run has settled the record
            return self.env.store.operation(record.id)
        good = status in (OperationStatus.SUCCESS, OperationStatus.SKIPPED)
        level = logging.INFO if good else logging.ERROR
        self._tell(EventKind.OPERATION_FINISHED, finished, f"{status}: {message}", level)
        return finished

    def _tell(self, kind: EventKind, record: OperationRecord, message: str, level: int = logging.INFO) -> None:
        seconds = (record.finished_at - record.started_at).total_seconds() if record.finished_at else 0.0
        self.env.emit(
            Event(
                kind=kind,
                at=self.env.now(),
                level=level,
                message=f"{self.table} {record.operation} {message}",
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
                },
            )
        )
