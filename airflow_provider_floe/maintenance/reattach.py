"""Finds the job that an earlier try of the same work left running elsewhere, and goes on with it.

What may have died, and what the next try of the same plan item does:

- the worker, before the job was on record: no job runs (see :class:`ResumableEngine`); the record is settled as any
  other, and the item runs again;
- the worker, after the job was on record and before the fence to COMMITTING: the job was not let go. As above;
- the worker, later: the job is polled. While it runs, or when it has ended well, the record is taken over and the job
  waited for. When it has failed or is forgotten, the table is asked whether it committed, and if not, the item runs
  again;
- the worker, after it handed over to a trigger that never came to run, or the triggerer: the same;
- the store: nobody goes on, and whoever comes back finds the last state. The engine may have dropped the job by then.

A lease that a try of the same item left is taken at once: what it guards here is a job that both would only wait for,
and the other one finds that its lease is gone before it does anything else. Records of other plans are left to
:mod:`~airflow_provider_floe.maintenance.settle`, which cancels.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_floe.engines.base import JobState, RemoteJob, ResumableEngine
from airflow_provider_floe.errors import EngineUnavailable, LeaseLost
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.leases import LeaseKeeper
from airflow_provider_floe.planning.model import Plan, PlanItem
from airflow_provider_floe.stores.protocols import Lease, OperationRecord, OperationStatus

log = logging.getLogger(__name__)


def own_job(env: Environment, plan: Plan, items: Sequence[PlanItem]) -> OperationRecord | None:
    """The unfinished record of one of the items, all of one table, whose job can be gone on with."""
    wanted = {item.id for item in items}
    unfinished = (OperationStatus.COMMITTING,)
    for record in env.store.operations(table=items[0].table.ref(), plan_id=plan.id, statuses=unfinished, limit=10_000):
        engine: object = env.engines.get(record.engine or "")
        if record.item_id in wanted and record.job is not None and isinstance(engine, ResumableEngine):
            return record
    return None


def adopt(
    env: Environment,
    plan: Plan,
    items: Sequence[PlanItem],
    keeper: LeaseKeeper,
    context: Mapping[str, Any],
    resumed: str | None,
) -> OperationRecord | None:
    """Take over the job of an earlier try, under our lease. None when there is none that is worth waiting for.

    :param context: where we run.
    :param resumed: the operation that this try has deferred for: it is taken however its job ended.
    """
    record = own_job(env, plan, items) if items else None
    if record is None:
        return None
    try:
        if record.id != resumed and not _worth_waiting_for(env, record, keeper):
            return None
        adopted = env.store.transition(
            record.id,
            expect=(OperationStatus.COMMITTING,),
            to=OperationStatus.COMMITTING,
            lease=keeper.lease,
            lease_token=keeper.lease.token,
            context={**record.context, **context},
        )
    except LeaseLost as error:
        log.info("%s", error)  # settled meanwhile
        return None
    log.info("%s on %s: going on with job %s", record.operation, record.table.ref(), record.remote_job)
    return adopted


def _worth_waiting_for(env: Environment, record: OperationRecord, keeper: LeaseKeeper) -> bool:
    """:raises LeaseLost: when the record is not ours any more."""
    engine, job = env.engines[record.engine or ""], record.job
    assert isinstance(engine, ResumableEngine)
    assert job is not None
    try:
        status = engine.poll(job)
    except EngineUnavailable as error:
        log.warning("job %s may still run: %s", job.id, error)
        return True
    keep_job(env, record, status.job, keeper.lease)
    if status.state in (JobState.RUNNING, JobState.FINISHED):
        return True
    log.info("job %s of an earlier try is over (%s: %s)", job.id, status.state, status.message)
    return False


def keep_job(env: Environment, record: OperationRecord, job: RemoteJob, lease: Lease) -> None:
    """Put what an engine last said of a job on record, while the lease is ours.

    :raises LeaseLost: when it is not, or the record was settled.
    """
    if job != record.job:
        env.store.transition(
            record.id,
            expect=(OperationStatus.COMMITTING,),
            to=OperationStatus.COMMITTING,
            lease=lease,
            remote_url=job.url,
            remote_state=job.state,
        )
