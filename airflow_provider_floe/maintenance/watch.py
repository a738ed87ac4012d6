"""Watches a job elsewhere for a task that has given up its worker, one look at a time.

Everything that a look needs stands in the store, so looks may come from one process after another. When a look says
that the watch is over, the task executes its batch again and takes the job over; see
:mod:`~airflow_provider_floe.maintenance.reattach` for what happens when nobody looks.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_provider_floe.engines.base import JobState, ResumableEngine
from airflow_provider_floe.errors import LeaseLost
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.reattach import keep_job
from airflow_provider_floe.maintenance.settle import settle_table
from airflow_provider_floe.stores.protocols import Lease, OperationRecord, OperationStatus

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Look:
    """What one look found.

    :ivar over: the watch ends here.
    :ivar message: for the task log.
    :ivar lease_token: for the next look.
    """

    over: bool
    message: str
    lease_token: str


def look(env: Environment, operation_id: str, lease_token: str, *, deadline: datetime | None) -> Look:
    """Ask about the job once, put what the engine says on record, and keep the table's lease.

    :param lease_token: as the task that deferred or the last look gave it.
    :param deadline: UTC; past it the job is cancelled.
    :raises EngineUnavailable: or another FloeError, when this look told nothing; the next one may.
    """
    record = env.store.operation(operation_id)
    if record.status is not OperationStatus.COMMITTING:
        return Look(True, f"operation {operation_id} is {record.status}: another run has settled it", lease_token)
    if record.lease_token != lease_token:
        return Look(True, f"another try waits for job {record.remote_job}", lease_token)
    try:
        lease = _kept_lease(env, record)
    except LeaseLost as error:
        return Look(True, str(error), lease_token)
    engine: object = env.engines.get(record.engine or "")
    job = record.job
    if job is None or not isinstance(engine, ResumableEngine):
        return Look(True, f"engine {record.engine} cannot be asked about job {record.remote_job} here", lease.token)
    if deadline is not None and env.now() >= deadline:
        stopped = engine.cancel(job.id)
        told = "it was cancelled" if stopped else "it was told to stop and has not"
        return Look(True, f"job {job.id} is past its deadline {deadline:%Y-%m-%d %H:%M} UTC: {told}", lease.token)
    status = engine.poll(job)
    try:
        keep_job(env, record, status.job, lease)
    except LeaseLost as error:
        return Look(True, str(error), lease.token)
    where = f"{record.operation} on {record.table.ref()}: job {job.id} is {status.state}"
    share = f", {status.done} of {status.total} {status.unit} done" if status.total else ""
    return Look(status.state is not JobState.RUNNING, f"{where} ({status.message}{share})", lease.token)


def give_up(env: Environment, operation_id: str, lease_token: str) -> str:
    """Cancel the job and settle its record, because its task is not to go on; says what came of it.

    Where the next try has taken the job over meanwhile, that settles the record and begins again.

    :param lease_token: see :func:`look`.
    :raises FloeError: when the engine does not answer; the next run on the table tries again.
    """
    record = env.store.operation(operation_id)
    engine: object = env.engines.get(record.engine or "")
    if record.status is not OperationStatus.COMMITTING or not isinstance(engine, ResumableEngine):
        return f"operation {operation_id} is {record.status}"
    table = record.table.ref()
    ttl = timedelta(seconds=env.settings.lease_seconds)
    holder = f"cancelling job {record.remote_job}"
    lease = None
    if record.lease_token == lease_token:  # so that no other try takes it over, only to see it cancelled
        lease = env.store.take_over(table, lease_token, holder, ttl) or env.store.acquire(table, holder, ttl)
    try:
        if record.remote_job is not None:
            stopped = engine.cancel(record.remote_job)
            log.info("job %s: %s", record.remote_job, "cancelled" if stopped else "told to stop")
        if lease is not None:
            settle_table(env, table, lease)
    finally:
        if lease is not None:
            env.store.release(lease)
    return f"operation {operation_id} is {env.store.operation(operation_id).status}"


def _kept_lease(env: Environment, record: OperationRecord) -> Lease:
    """The table's lease, for one more period; taken anew when it ran out before anybody looked.

    :raises LeaseLost: when another run has the table.
    """
    table, ttl = record.table.ref(), timedelta(seconds=env.settings.lease_seconds)
    held = Lease(table=record.table, token=record.lease_token or "", holder="", expires_at=record.started_at)
    try:
        return env.store.renew(held, ttl)
    except LeaseLost:
        where = "/".join(str(record.context.get(key)) for key in ("dag_id", "run_id", "task_id"))
        holder = f"{where}, deferred"
        lease = env.store.take_over(table, held.token, holder, ttl) or env.store.acquire(table, holder, ttl)
        if lease is None:
            raise
    try:
        env.store.transition(
            record.id,
            expect=(OperationStatus.COMMITTING,),
            to=OperationStatus.COMMITTING,
            lease=lease,
            lease_token=lease.token,
        )
    except LeaseLost:
        env.store.release(lease)
        raise
    return lease
