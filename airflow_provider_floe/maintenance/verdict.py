"""The verdict on a run: good, or which tables failed and why."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import groupby

from airflow_provider_floe.errors import FloeError
from airflow_provider_floe.health.report import AssessmentFailure, FailureKind
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.request import RunVerdict
from airflow_provider_floe.maintenance.settle import settle_all
from airflow_provider_floe.maintenance.watch import give_up
from airflow_provider_floe.planning.model import Disposition, Plan, PlanItem
from airflow_provider_floe.stores.protocols import OperationRecord, OperationStatus

log = logging.getLogger(__name__)

_GOOD = (OperationStatus.SUCCESS, OperationStatus.SKIPPED)


def verdict(
    env: Environment,
    plan_id: str | None,
    assessment_id: str | None,
    upstream_failures: Sequence[str] = (),
) -> RunVerdict:
    """Look at what the store says of a run, after settling what dead tasks left behind.

    :param plan_id: None when the plan task did not get that far.
    :param assessment_id: None when the assess task did not get that far.
    :param upstream_failures: names of upstream tasks that failed.
    """
    failures = [f"task {name} failed: see its log" for name in upstream_failures]
    if plan_id is None:
        if assessment_id is not None:
            failures += [_failure_line(failure) for failure in env.store.assessment(assessment_id).failures]
        return RunVerdict(failed=bool(failures), failures=tuple(failures), summary=("nothing was planned",))
    plan = env.store.plan(plan_id)
    if not plan.dry_run:
        _cancel_what_nobody_waits_for(env, plan)
        settle_all(env)
    records = _newest_by_item(env.store.operations(plan_id=plan_id, limit=100_000))
    failures += [_failure_line(failure) for failure in plan.failures if failure.kind is not FailureKind.VANISHED]
    summary = [_failure_line(failure) for failure in plan.failures if failure.kind is FailureKind.VANISHED]
    for table, group in groupby(sorted(plan.items, key=lambda item: item.table.ref()), key=lambda item: item.table):
        lines = []
        for item in group:
            line, failed = _item_line(plan, item, records.get(item.id))
            if failed:
                failures.append(f"{table.ref()} {line}")
            if item.disposition is not Disposition.NOT_GOVERNED:
                lines.append(line)
        summary.append(f"{table.ref()}: {'; '.join(lines) or 'nothing governed'}")
    return RunVerdict(failed=bool(failures), failures=tuple(failures), summary=tuple(summary))


def _cancel_what_nobody_waits_for(env: Environment, plan: Plan) -> None:
    """The execute tasks are over: a job that one of them left running elsewhere is not to go on.

    Such as that of a task that was marked failed while it was deferred, and whose trigger was not told.
    """
    for record in env.store.operations(plan_id=plan.id, statuses=(OperationStatus.COMMITTING,), limit=100_000):
        try:
            log.warning("%s", give_up(env, record.id, record.lease_token or ""))
        except FloeError as error:
            log.warning("%s: job %s may still run: %s", record.table.ref(), record.remote_job, error)


def _newest_by_item(records: list[OperationRecord]) -> dict[str | None, OperationRecord]:
    newest: dict[str | None, OperationRecord] = {}
    for record in records:  # newest first
        newest.setdefault(record.item_id, record)
    return newest


def _failure_line(failure: AssessmentFailure) -> str:
    return f"{failure.subject} not assessed ({failure.kind}): {failure.message}"


def _item_line(plan: Plan, item: PlanItem, record: OperationRecord | None) -> tuple[str, bool]:
    """One operation in a few words, and whether it failed."""
    if item.disposition is not Disposition.RUN:
        return f"{item.operation} {item.disposition}: {'; '.join(item.reasons)}", False
    if plan.dry_run:
        return f"{item.operation} would run: {'; '.join(item.reasons)}", False
    if record is None:
        return f"{item.operation} was planned and has no record: its execute task did not get that far", True
    left = "its task is over, and what became of it is not known yet" if not record.status.finished else ""
    told = record.error or (record.result.message if record.result else left)
    return f"{item.operation} {record.status}: {told}", record.status not in _GOOD
