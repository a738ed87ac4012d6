"""What the Floe store keeps, as separate protocols, and the records that stand in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from pydantic import Field

from airflow_provider_floe.engines.base import Deletion, OperationResult, RemoteJob
from airflow_provider_floe.health.report import Assessment, HealthReport, Model, TableId, new_id
from airflow_provider_floe.planning.model import OperationHistory, Plan
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.tables import Operation, TableRef


class OperationStatus(StrEnum):
    """State or outcome of an operation record."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMMITTING = "COMMITTING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    PARTIAL_FAILURE = "PARTIAL_FAILURE"
    NO_POLICY = "NO_POLICY"
    NO_OPERATIONS = "NO_OPERATIONS"
    SKIPPED = "SKIPPED"
    UNKNOWN = "UNKNOWN"
    INTERRUPTED = "INTERRUPTED"

    @property
    def finished(self) -> bool:
        """Whether nobody works on it any more. UNKNOWN is finished but unsettled."""
        return self not in (OperationStatus.PENDING, OperationStatus.RUNNING, OperationStatus.COMMITTING)

    @property
    def settled(self) -> bool:
        """Whether it is finished and its outcome is known."""
        return self.finished and self is not OperationStatus.UNKNOWN


class OperationRecord(Model):
    """One operation on one table, from before it starts to its outcome.

    :ivar lease_token: token of the table lease under which it runs.
    :ivar context: where it ran: dag id, run id, task id, map index, try number, host.
    :ivar commit_detail: what :meth:`OperationContext.committing` and ``committed`` reported last.
    :ivar remote_job: id of the engine's own job, for remote engines.
    :ivar remote_url: the engine's own page for that job.
    :ivar remote_state: private to the engine; see :class:`~airflow_provider_floe.engines.base.RemoteJob`.
    :ivar slot: the due slot that the operation answers, UTC; None outside scheduled runs.
    """

    id: str = Field(default_factory=new_id)
    table: TableId
    operation: Operation
    status: OperationStatus
    plan_id: str | None = None
    item_id: str | None = None
    run_id: str | None = None
    slot: datetime | None = None
    policy: str | None = None
    engine: str | None = None
    reason: str = ""
    started_at: datetime
    finished_at: datetime | None = None
    lease_token: str | None = None
    remote_job: str | None = None
    remote_url: str | None = None
    remote_state: dict[str, Any] = Field(default_factory=dict)
    error: str | None = None
    error_type: str | None = None
    commit_detail: dict[str, Any] = Field(default_factory=dict)
    result: OperationResult | None = None
    context: dict[str, Any] = Field(default_factory=dict)

    @property
    def job(self) -> RemoteJob | None:
        """The engine's own job, for whoever goes on with it."""
        if self.remote_job is None:
            return None
        return RemoteJob(id=self.remote_job, url=self.remote_url, state=self.remote_state)


class SlotOutcome(StrEnum):
    """What became of a due slot."""

    EXECUTED = "executed"
    FAILED = "failed"
    NOTHING_TO_DO = "nothing to do"
    BLOCKED = "blocked by a gate"
    THROTTLED = "throttled"
    CUT = "cut by budget"
    BUSY = "lease busy"
    INTERRUPTED = "interrupted"
    UNKNOWN = "unknown"
    REFUSED = "refused"

    @property
    def consumes(self) -> bool:
        """Whether the slot is used up; the others leave it open for the next run."""
        return self in (
            SlotOutcome.EXECUTED,
            SlotOutcome.FAILED,
            SlotOutcome.NOTHING_TO_DO,
            SlotOutcome.THROTTLED,
            SlotOutcome.REFUSED,
        )


class ScheduleExecution(Model):
    """The answer to one due slot of one (table, operation); at most one per slot consumes it.

    :ivar slot: UTC.
    """

    table: TableId
    operation: Operation
    policy: str
    slot: datetime
    outcome: SlotOutcome
    reason: str
    run_id: str
    recorded_at: datetime


class Lease(Model):
    """Exclusive right to maintain one table until it expires.

    :ivar expires_at: by the store's clock, UTC.
    """

    table: TableId
    token: str
    holder: str
    expires_at: datetime


class JournalKind(StrEnum):
    """Why a file stands in the journal."""

    OUTPUT = "output"
    DELETION = "deletion"


class JournalEntry(Model):
    """One file of an operation.

    :ivar done_at: for a deletion, when it was deleted or moved; for an output, when it was cleaned up.
    """

    operation_id: str
    kind: JournalKind
    path: str
    size_bytes: int = 0
    reason: str = ""
    quarantined_to: str | None = None
    recorded_at: datetime
    done_at: datetime | None = None
    restored_at: datetime | None = None


class PolicyStore(Protocol):
    """Policies kept as rows, beside or instead of files."""

    def policies(self) -> list[Policy]:
        """All policies, by name."""

    def policy_documents(self) -> Mapping[str, str]:
        """All policies as JSON text by name, whether they are valid or not."""

    def put_policy(self, policy: Policy) -> None:
        """Create or replace by name."""

    def delete_policy(self, name: str) -> bool:
        """Whether there was one."""

    def policy_revision(self) -> int:
        """Grows with every change; one cheap query, for the parse-time cache."""


class TableHealthStore(Protocol):
    """Health reports, and the assessments that hand them from task to task."""

    def save_reports(self, reports: Iterable[HealthReport], *, keep_per_table: int = 100, keep_days: int = 30) -> None:
        """Persist, then drop what exceeds the retention."""

    def latest_report(self, table: TableRef) -> HealthReport | None:
        """The newest one kept."""

    def reports(self, table: TableRef, limit: int = 100) -> list[HealthReport]:
        """Newest first."""

    def save_assessment(self, assessment: Assessment) -> None:
        """Keep for the plan task (a week at most)."""

    def assessment(self, assessment_id: str) -> Assessment:
        """:raises KeyError: when there is none."""


class PlanStore(Protocol):
    """Plans, and the byte budget they reserve."""

    def save_plan(self, plan: Plan) -> None:
        """Immutable once saved."""

    def plan(self, plan_id: str) -> Plan:
        """:raises KeyError: when there is none."""

    def plans(self, limit: int = 50) -> list[Plan]:
        """Newest first."""

    def bytes_reserved(self, window: timedelta = timedelta(hours=1)) -> int:
        """Sum of what plans reserved in the window, settled where the outcome is known."""

    def reserve_and_save(self, plan: Plan, *, max_bytes: int, window: timedelta = timedelta(hours=1)) -> bool:
        """In one transaction: save the plan and reserve the estimates of its RUN items.

        :returns: False, with nothing saved, when that would exceed ``max_bytes`` within the window (0 = unlimited).
        """

    def settle_bytes(self, item_id: str, actual_bytes: int) -> None:
        """Replace an item's reservation by what it really read."""


class OperationStore(Protocol):
    """Operation records and the history that planning needs."""

    def save_operation(self, record: OperationRecord) -> None:
        """Create."""

    def transition(
        self,
        operation_id: str,
        *,
        expect: Sequence[OperationStatus],
        to: OperationStatus,
        lease: Lease | None = None,
        **changes: Any,
    ) -> OperationRecord:
        """Change status and fields in one transaction, only from an expected status.

        :param lease: when given, the transition also requires that this lease is still held (the fence).
        :raises LeaseLost: when the lease ran out, was taken over, or the status was not an expected one.
        """

    def operation(self, operation_id: str) -> OperationRecord:
        """:raises KeyError: when there is none."""

    def operations(
        self,
        *,
        table: TableRef | None = None,
        operation: Operation | None = None,
        plan_id: str | None = None,
        statuses: Sequence[OperationStatus] | None = None,
        limit: int = 100,
    ) -> list[OperationRecord]:
        """Newest first."""

    def history(self, table: TableRef) -> Mapping[Operation, OperationHistory]:
        """Aggregated over the records kept, for every operation."""

    def prune_operations(self, keep_days: int) -> int:
        """Drop finished records, their journal included; returns how many."""


class ScheduleStore(Protocol):
    """Which slots are used up, and what became of the others."""

    def record_slot(self, execution: ScheduleExecution) -> bool:
        """False, with nothing changed, when the slot is already consumed."""

    def consumed_slot(self, table: TableRef, operation: Operation) -> datetime | None:
        """The newest consumed slot, UTC."""

    def last_slot(self, table: TableRef, operation: Operation) -> ScheduleExecution | None:
        """The newest execution, consumed or not."""

    def slots(self, table: TableRef, operation: Operation, limit: int = 100) -> list[ScheduleExecution]:
        """Newest first."""


class LeaseStore(Protocol):
    """One lease per table, on the store's clock."""

    def acquire(self, table: TableRef, holder: str, ttl: timedelta) -> Lease | None:
        """None when another holder has it; an expired lease is taken over with a new token."""

    def renew(self, lease: Lease, ttl: timedelta) -> Lease:
        """:raises LeaseLost: when it was taken over or has run out."""

    def take_over(self, table: TableRef, token: str, holder: str, ttl: timedelta) -> Lease | None:
        """Take a lease from the holder that it was handed over by, expired or not; it has a new token then.

        :param token: of the lease to take.
        :returns: None when that is not the lease that stands.
        """

    def release(self, lease: Lease) -> None:
        """Does nothing when it is no longer ours."""

    def lease(self, table: TableRef) -> Lease | None:
        """The lease that stands now, expired or not."""

    def holds(self, lease: Lease) -> bool:
        """Whether it is still ours and has not run out."""


class JournalStore(Protocol):
    """The write-ahead list of files, which is the deletion log too."""

    def record_outputs(self, operation_id: str, paths: Iterable[str]) -> None:
        """See :class:`~airflow_provider_floe.engines.base.FileJournal`."""

    def record_deletions(self, operation_id: str, deletions: Sequence[Deletion]) -> None:
        """See :class:`~airflow_provider_floe.engines.base.FileJournal`."""

    def mark_done(self, operation_id: str, kind: JournalKind, paths: Iterable[str]) -> None:
        """Deleted, moved or cleaned up."""

    def mark_restored(self, operation_id: str, paths: Iterable[str]) -> None:
        """Moved back from quarantine."""

    def journal(self, operation_id: str, kind: JournalKind | None = None) -> list[JournalEntry]:
        """In the order recorded."""

    def open_outputs(self, table: TableRef) -> list[JournalEntry]:
        """Outputs, not cleaned up, of operations on the table that ended FAILED or INTERRUPTED."""


class FileGroup(Model):
    """One file group of an operation whose groups several tasks may write.

    :ivar snapshot_id: that the groups were selected in.
    :ivar worker: who has taken it.
    :ivar expires_at: by the store's clock, UTC; from then on another worker may take it.
    :ivar written: what its worker handed in; private to the engine.
    """

    number: int
    snapshot_id: int
    size_bytes: int
    digest: str
    worker: str | None = None
    expires_at: datetime | None = None
    written: dict[str, Any] | None = None


class FileGroupStore(Protocol):
    """The file groups of running operations, shared out among tasks."""

    def offer_file_groups(self, operation_id: str, groups: Sequence[FileGroup]) -> None:
        """All or none.

        :raises KeyError: when there is no such operation.
        """

    def claim_file_group(self, operation_id: str, worker: str, ttl: timedelta, *, before: int) -> int | None:
        """Take the first group below this number that is neither finished nor anybody's; None when there is none."""

    def renew_file_groups(self, operation_id: str, worker: str, ttl: timedelta) -> None:
        """Keep all that the worker has taken."""

    def give_back_file_groups(self, operation_id: str, worker: str, number: int | None = None) -> None:
        """Leave a group, or all that the worker has taken, to others."""

    def finish_file_group(self, operation_id: str, worker: str, number: int, written: Mapping[str, Any]) -> None:
        """:raises LeaseLost: when it is not the worker's any more, or the operation is not at work."""

    def unfinished_file_groups(self, operation_id: str, *, before: int) -> int:
        """How many groups below this number are not finished."""

    def file_groups(self, operation_id: str) -> list[FileGroup]:
        """By number."""

    def drop_file_groups(self, operation_id: str) -> None:
        """When the operation is over."""


class FloeStore(
    PolicyStore,
    TableHealthStore,
    PlanStore,
    OperationStore,
    ScheduleStore,
    LeaseStore,
    JournalStore,
    FileGroupStore,
    Protocol,
):
    """All of them, as one database gives them. Safe with several processes writing."""

    shared: bool
    """Whether other processes see it: False for the memory store."""

    def now(self) -> datetime:
        """The database's clock, UTC."""

    def schema_version(self) -> int:
        """The version of the schema in place, after migration."""

    def describe(self) -> str:
        """One line for ``airflow floe check``: kind, place, schema version; no secret."""

    def transaction(self) -> AbstractContextManager[None]:
        """Group calls of this thread into one transaction; nested ones join it."""

    def close(self) -> None:
        """Release connections."""
