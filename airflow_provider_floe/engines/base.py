"""The protocol of an engine, and what the use cases hand to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import Field

from airflow_provider_floe.engines.capabilities import Capabilities
from airflow_provider_floe.health.report import Model
from airflow_provider_floe.policies.model import OperationSettings
from airflow_provider_floe.tables import Operation, TableRef

if TYPE_CHECKING:
    from pyiceberg.table import Table

OPERATION_ID_PROPERTY = "floe.operation-id"
"""Snapshot summary property that ties a snapshot to our operation record."""

SUMMARY_EVIDENCE = "summary_evidence"
"""Key of a commit detail: summary properties, by name, that the snapshots of the operation bear instead."""


@dataclass(frozen=True, slots=True)
class OperationRequest:
    """One operation on one table, as planned.

    :ivar operation_id: id of the operation record; goes into the snapshot summary.
    :ivar settings: the governing policy's settings object for this operation.
    :ivar ignored_settings: settings that the plan allows the engine not to honour.
    :ivar deadline: UTC; the engine stops before its next side effect once it is past.
    """

    operation_id: str
    table: TableRef
    operation: Operation
    settings: OperationSettings
    ignored_settings: tuple[str, ...] = ()
    deadline: datetime | None = None


@dataclass(frozen=True, slots=True)
class TableLocation:
    """Where another table of the catalog keeps its files.

    :ivar prefixes: location and every ``write.*.path`` it sets; empty means that they are not known.
    """

    table: TableRef
    uuid: str | None
    prefixes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deletion:
    """One file that is going to be deleted.

    :ivar quarantined_to: where the file is moved instead, None when it is deleted at once.
    """

    path: str
    size_bytes: int
    reason: str
    quarantined_to: str | None = None


class FileJournal(Protocol):
    """Write-ahead list of the files an operation writes and deletes, kept in the Floe store."""

    def record_outputs(self, paths: Iterable[str]) -> None:
        """Before a file is written: if the operation dies uncommitted, these may be removed at once."""

    def record_deletions(self, deletions: Sequence[Deletion]) -> None:
        """Before files are deleted or moved (promise 18)."""

    def mark_deleted(self, paths: Iterable[str]) -> None:
        """After files are gone or moved."""


class OperationContext(Protocol):
    """What an engine may ask of the use case that runs it."""

    @property
    def journal(self) -> FileJournal:
        """The write-ahead list of this operation."""

    def now(self) -> datetime:
        """UTC."""

    def load_table(self) -> Table:
        """The table, loaded from the catalog anew at each call."""

    def checkpoint(self) -> None:
        """Call between side effects and regularly in long loops.

        :raises LeaseLost: when the lease ran out or another run took it.
        :raises OperationCancelled: when the task was cancelled or the deadline is past.
        """

    def committing(self, detail: Mapping[str, Any]) -> None:
        """The fence: moves the record RUNNING -> COMMITTING while the lease is still ours, right before a commit.

        :raises LeaseLost: when the lease ran out or another run took it; then nothing may be committed.
        """

    def committed(self, detail: Mapping[str, Any]) -> None:
        """Right after an acknowledged commit: COMMITTING -> RUNNING, with the new snapshot in the record."""

    def remote_job(self, job_id: str) -> None:
        """As soon as an engine elsewhere has taken the job: its id there goes into the record.

        :raises LeaseLost: when the lease ran out or another run took it; then the job has to be cancelled.
        """

    def progress(self, done: int, total: int, unit: str) -> None:
        """Report progress; the context decides how often to log it."""

    def other_tables(self) -> Sequence[TableLocation]:
        """Locations of all other tables of the catalog, for the overlap check (promise 5)."""

    def dead_outputs(self) -> Sequence[str]:
        """Files in this table's write-ahead lists whose operation is proven dead and not committed (promise 10)."""


class OperationResult(Model):
    """What an operation did, in numbers that the table's metadata can confirm.

    :ivar changed: False for a run that found nothing to do.
    """

    changed: bool
    message: str
    files_rewritten: int = 0
    bytes_rewritten: int = 0
    files_added: int = 0
    bytes_added: int = 0
    delete_files_removed: int = 0
    snapshots_expired: int = 0
    files_deleted: int = 0
    bytes_deleted: int = 0
    files_quarantined: int = 0
    manifests_rewritten: int = 0
    manifests_added: int = 0
    snapshot_before: int | None = None
    snapshot_after: int | None = None
    duration_seconds: float = 0.0
    ignored_settings: tuple[str, ...] = ()
    details: dict[str, Any] = Field(default_factory=dict)


@runtime_checkable
class Engine(Protocol):
    """Carries out operations."""

    name: str

    def probe(self) -> Capabilities:
        """Find out what the engine that is there can do; cheap enough for each assess.

        :raises FloeError: when the engine cannot be reached, naming the connection and what to check.
        """

    def execute(self, request: OperationRequest, context: OperationContext) -> OperationResult:
        """Run one operation to its end.

        :raises FloeError: any of the hierarchy; on all but ``CommitOutcomeUnknown`` the table is unchanged
            or holds only complete commits.
        """


@runtime_checkable
class RemoteEngine(Protocol):
    """An engine whose jobs run elsewhere and may outlive the task that submitted them."""

    def cancel(self, job_id: str) -> bool:
        """Cancel a job, from whatever process; one that has ended is none to cancel.

        :param job_id: what :meth:`OperationContext.remote_job` was given.
        :returns: whether it is over by then; False means that it may still run.
        :raises FloeError: when the engine cannot be asked.
        """
