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


class Waiting(Model):
    """A job elsewhere that goes on while nobody holds a worker for it: somebody has to watch it, then execute again.

    :ivar operation_id: its record; what watches it finds everything else there.
    :ivar lease_token: of the table's lease, which was left standing for what watches the job.
    :ivar url: the engine's own page for the job.
    :ivar deadline: UTC; when the job is to be cancelled.
    """

    operation_id: str
    lease_token: str
    plan_id: str
    engine: str
    job_id: str
    url: str | None = None
    deadline: datetime | None = None


class BatchResult(Model):
    """What one execute task did; failures stand in the records, the task itself ends green.

    :ivar before: the rest of the batch, as far as earlier tries have done it.
    :ivar waiting: why it has not come to its end yet.
    """

    plan_id: str
    batch: int
    records: tuple[OperationRecord, ...] = ()
    before: tuple[OperationRecord, ...] = ()
    waiting: Waiting | None = None


class RunVerdict(Model):
    """Whether a run is good as a whole.

    :ivar failures: one line for each table or operation that failed, naming it.
    :ivar summary: lines for the task log: one per table.
    """

    failed: bool
    failures: tuple[str, ...] = ()
    summary: tuple[str, ...] = ()


class RunResult(Model):
    """Everything of a run that ran in one task.

    :ivar before: what earlier tries have done of the plan.
    :ivar waiting: why it has not come to its end yet; the verdict is none then.
    """

    assessment: Assessment
    plan: Plan
    records: tuple[OperationRecord, ...] = ()
    before: tuple[OperationRecord, ...] = ()
    verdict: RunVerdict
    waiting: Waiting | None = None
