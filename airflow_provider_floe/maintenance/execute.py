"""Execute: carry out one batch of a plan, table by table, each under its lease and on record."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from itertools import groupby
from typing import Any

from airflow_provider_floe.engines.base import OperationRequest, OperationResult, RemoteEngine, ResumableEngine
from airflow_provider_floe.engines.remote import look_and_collect, wait_and_collect
from airflow_provider_floe.engines.sharing import SharingEngine
from airflow_provider_floe.errors import (
    CommitOutcomeUnknown,
    EngineFailed,
    EngineUnavailable,
    FloeError,
    LeaseBusy,
    LeaseLost,
    OperationCancelled,
    UnsafeOperation,
)
from airflow_provider_floe.health.report import new_id
from airflow_provider_floe.maintenance.context import RunningOperation
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.events import EventKind, operation_event
from airflow_provider_floe.maintenance.leases import LeaseKeeper, held_lease
from airflow_provider_floe.maintenance.locations import TableLocations
from airflow_provider_floe.maintenance.reattach import adopt, own_job
from airflow_provider_floe.maintenance.request import BatchResult, Waiting
from airflow_provider_floe.maintenance.settle import settle_table
from airflow_provider_floe.maintenance.sharing import StoreBoard, help_item
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
    defer: bool = False,
    resumed: str | None = None,
) -> BatchResult:
    """Run one batch of a saved plan. Failures end in the records; only cancellation and store errors are raised.

    Running the same batch again runs only what is unfinished. A job of this batch that still runs elsewhere, because
    the try that sent it died or deferred, is waited for; it is never sent twice.

    :param batch: a number past the plan's batches is that of a helper: it writes file groups of an item that another
        task carries out, and has no records of its own.
    :param context: where it runs (dag_id, run_id, task_id, map_index, try_number), for the records.
    :param cancelled: asked between side effects; True stops the batch.
    :param defer: return while a job runs elsewhere, if its engine can be resumed; the table's lease is left standing
        for :func:`~airflow_provider_floe.maintenance.watch.look`.
    :param resumed: id of the operation whose job was watched until it was over, when this call goes on after that.
    :raises OperationCancelled: when the task was cancelled; what was done stays on record.
    """
    plan = env.store.plan(plan_id)
    locations = TableLocations(env)
    if batch >= len(plan.batches):
        item = plan.item(plan.helpers[batch - len(plan.batches)])
        written = help_item(env, plan, item, locations, cancelled=cancelled)
        log.info("%s on %s: this task wrote %d of its file groups", item.operation, item.table.ref(), written)
        return BatchResult(plan_id=plan.id, batch=batch)
    items = [plan.item(item_id) for item_id in plan.batches[batch]]
    records: list[OperationRecord] = []
    for table_id, group in groupby(items, key=lambda item: item.table):
        run = _TableRun(env, plan, table_id.ref(), locations, context, cancelled, defer, resumed)
        try:
            records += run.run(list(group))
        except _Deferred as deferred:
            records += run.records
            return _result(env, plan, batch, records, deferred.waiting)
    return _result(env, plan, batch, records)


def _result(
    env: Environment, plan: Plan, batch: int, records: Sequence[OperationRecord], waiting: Waiting | None = None
) -> BatchResult:
    told = {record.item_id for record in records}
    others = set(plan.batches[batch]) - told
    done = env.store.operations(plan_id=plan.id, statuses=_DONE, limit=100_000) if others else []
    before = {record.item_id: record for record in reversed(done) if record.item_id in others}
    return BatchResult(
        plan_id=plan.id, batch=batch, records=tuple(records), before=tuple(before.values()), waiting=waiting
    )


class _Deferred(Exception):
    """A job goes on elsewhere, and the batch with it some time."""

    def __init__(self, waiting: Waiting) -> None:
        super().__init__(waiting.operation_id)
        self.waiting = waiting


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
        defer: bool,
        resumed: str | None,
    ) -> None:
        self.env = env
        self.plan = plan
        self.table = table
        self.locations = locations
        self.context = {**context, "host": socket.gethostname(), "pid": os.getpid()}
        self.cancelled = cancelled
        self.defer = defer
        self.resumed = resumed
        self.records: list[OperationRecord] = []

    def run(self, items: Sequence[PlanItem]) -> list[OperationRecord]:
        """Run the items that are not done; the first one that does not succeed stops those after it.

        :raises _Deferred: when the job of one goes on elsewhere; ``records`` has what was done before.
        """
        items = self._unfinished(items)
        if not items:
            return []
        records = self.records
        ours = own_job(self.env, self.plan, items)
        token = ours.lease_token if ours else None
        try:
            with held_lease(self.env, self.table, self._holder(), cancelled=self.cancelled, token=token) as keeper:
                try:
                    ours = adopt(self.env, self.plan, items, keeper, self.context, self.resumed)
                    settle_table(self.env, self.table, keeper.lease)
                except LeaseBusy:
                    raise
                except FloeError as error:
                    return self._not_settled(items, error)
                # another try of this batch, dead by now or not, may have had the lease while we waited for it
                items = self._unfinished(items)
                for position, item in enumerate(items):
                    adopted = ours if ours is not None and ours.item_id == item.id else None
                    record = self._run_item(item, keeper, adopted)
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

    def _run_item(self, item: PlanItem, keeper: LeaseKeeper, adopted: OperationRecord | None) -> OperationRecord:
        answered = self.env.store.consumed_slot(self.table, item.operation) if item.slot and not adopted else None
        if item.slot and answered and answered >= item.slot:
            reason = f"its slot {item.slot:%Y-%m-%d %H:%M} UTC was answered by another run since the plan"
            return self._skip(item, reason, SlotOutcome.BLOCKED)
        record = adopted or self._new_record(item, OperationStatus.RUNNING, lease_token=keeper.lease.token)
        if adopted is None:
            self._tell(EventKind.OPERATION_STARTED, record, f"started on engine {item.engine}: {record.reason}")
        else:
            where = f": {record.remote_url}" if record.remote_url else ""
            self._tell(EventKind.JOB_SENT, record, f"goes on with job {record.remote_job}{where}")
        try:
            result = self._execute(item, record, keeper, adopted)
        except _Deferred:
            keeper.hand_over()
            raise
        except Exception as error:
            if adopted is None or adopted.id == self.resumed or not isinstance(error, EngineFailed | EngineUnavailable):
                return self._failed(item, record, error)
            told = f"its job, left by an earlier try, did nothing: {error}"
            self._failed(item, record, OperationCancelled(told))
            return self._run_item(item, keeper, None)
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

    def _execute(
        self, item: PlanItem, record: OperationRecord, keeper: LeaseKeeper, adopted: OperationRecord | None
    ) -> OperationResult:
        engine = self.env.engines[item.engine or ""]
        settings = SETTINGS_MODELS[item.operation].model_validate(item.settings)
        if adopted is None:
            self._check_unchanged(item)
        deadline = record.started_at + timedelta(hours=item.timeout_hours) if item.timeout_hours else None
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
        if not isinstance(engine, ResumableEngine):
            if self.defer and isinstance(engine, RemoteEngine):
                log.info(
                    "engine %s is reached in a way that cannot be resumed: this task waits for its job", item.engine
                )
            if item.id in self.plan.helpers and isinstance(engine, SharingEngine):
                with StoreBoard(self.env, record, commits=True) as board:
                    return engine.execute_shared(request, operation_context, board)
            return engine.execute(request, operation_context)
        begun = adopted.job if adopted is not None else None
        job = begun or engine.submit(request, operation_context)
        if isinstance(job, OperationResult):
            return job
        try:
            if not self.defer:
                return wait_and_collect(engine, request, operation_context, job)
            result = look_and_collect(engine, request, operation_context, job)
        except (EngineFailed, EngineUnavailable):
            operation_context.checkpoint()  # past its deadline, it was cancelled for that
            raise
        if result is None:
            raise _Deferred(
                Waiting(
                    operation_id=record.id,
                    lease_token=keeper.lease.token,
                    plan_id=self.plan.id,
                    engine=item.engine or "",
                    job_id=job.id,
                    url=job.url,
                    deadline=deadline,
                )
            )
        return result

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
        self.env.emit(operation_event(kind, record, self.env.now(), message, level))
