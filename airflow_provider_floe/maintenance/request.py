"""What a run is asked to do, and what it answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from airflow_provider_floe.health.report import Assessment, Model, TableId
from airflow_provider_floe.planning.model import Plan, RunMode
from airflow_provider_floe.stores.protocols import OperationRecord
from airflow_provider_floe.tables import Operation


class RunRequest(Model):
    """One run.

    :ivar run_after: UTC; slots up to it are due. Scheduled runs only.
    :ivar policies: scheduled runs: those of the DAG; a table run: at most one name, which must match; empty = all.
    :ivar table: a run over one table; None = every table that the policies govern.
    :ivar context: where it runs: dag_id, run_id, task_id, map_index, try_number, host.
    """

    run_id: str
    mode: RunMode
    run_after: datetime | None = None
    policies: tuple[str, ...] = ()
    table: TableId | None = None
    operations: tuple[Operation, ...] | None = None
    force: bool = False
    dry_run: bool = False
    context: dict[str, Any] = Field(default_factory=dict)


class BatchResult(Model):
    """What one execute task did; failures stand in the records, the task itself ends green."""

    plan_id: str
    batch: int
    records: tuple[OperationRecord, ...] = ()
    skipped: tuple[str, ...] = ()


class RunVerdict(Model):
    """Whether a run is good as a whole.

    :ivar failures: one line for each table or operation that failed, naming it.
    :ivar summary: lines for the task log: one per table.
    """

    failed: bool
    failures: tuple[str, ...] = ()
    summary: tuple[str, ...] = ()


class RunResult(Model):
    """Everything of a run that ran in one process."""

    assessment: Assessment
    plan: Plan
    records: tuple[OperationRecord, ...] = ()
    verdict: RunVerdict
