"""The protocol of an engine, and what the use cases hand to it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
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

    def recorded_deletions(self) -> Sequence[Deletion]:
        """What :meth:`record_deletions` was told for this operation, in whatever process."""


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

    def remote_job(self, job_id: str, *, url: str | None = None, state: Mapping[str, Any] | None = None) -> None:
        """As soon as an engine elsewhere has taken the job: its id there goes into the record. May be told again.

        :param url: see :class:`RemoteJob`; None leaves what was told before.
        :param state: see :class:`RemoteJob`; None leaves what was told before.
        :raises LeaseLost: when the lease ran out or another run took it; then the job has to be cancelled.
        """

    def progress(self, done: int, total: int, unit: str) -> None:
        """Report progress; the context decides how often to log it."""

    def other_tables(self) -> Sequence[TableLocation]:
        """Locations of all other tables of the catalog, for the overlap check (promise 5)."""

    def dead_outputs(self) -> Sequence[str]:
        """Files in this table's write-ahead lists whose operation is proven dead and not committed (promise 10)."""


class JobState(StrEnum):
    """What an engine says of a job that it was given."""

    RUNNING = "running"
    """Waiting or running: it may still commit."""
    FINISHED = "finished"
    FAILED = "failed"
    """It is over without success, by itself or because it was cancelled."""
    GONE = "gone"
    """The engine does not know it (any more), so it does not run: only the table can tell what became of it."""


class RemoteJob(Model):
    """A job elsewhere, as the operation record keeps it: all that another process needs to go on with it.

    :ivar id: the engine's own id; what :meth:`RemoteEngine.cancel` takes.
    :ivar url: the engine's own page for the job, for people.
    :ivar state: JSON, private to the engine: how it finds the job again, and what it knew of the table before. It may
        hold no secret: the store keeps it.
    """

    id: str
    url: str | None = None
    state: dict[str, Any] = Field(default_factory=dict)


class JobStatus(Model):
    """How a job stands.

    :ivar job: the job as it is to be kept from now on.
    :ivar done: units done, of ``total``; both 0 while the engine does not say.
    :ivar unit: what is counted, such as ``splits``.
    :ivar message: for people: the engine's own word for the state, or its error.
    """

    job: RemoteJob
    state: JobState
    done: int = 0
    total: int = 0
    unit: str = ""
    message: str = ""


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

    @classmethod
    def unchanged(
        cls, request: OperationRequest, snapshot_id: int | None, message: str, started: float
    ) -> OperationResult:
        """Of a run that found nothing to do.

        :param snapshot_id: the current snapshot of main, where it is known.
        :param message: why there was nothing to do.
        :param started: when it began, by :func:`time.monotonic`.
        """
        return cls(
            changed=False,
            message=message,
            snapshot_before=snapshot_id,
            snapshot_after=snapshot_id,
            duration_seconds=time.monotonic() - started,
            ignored_settings=request.ignored_settings,
        )


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


@runtime_checkable
class ResumableEngine(RemoteEngine, Protocol):
    """An engine whose jobs another process can go on waiting for, so that a task may die or defer meanwhile.

    Nothing of a job lives in the engine object: whoever has the operation record has all of it. ``execute`` of such an
    engine is :func:`~airflow_provider_floe.engines.remote.carry_out`.

    What a death at each point leaves, and who goes on:

    - in ``submit`` before the job is on record: an engine must not let a job run that nobody can find again. Either
      nothing runs before it is on record (Trino), or the record has a name for it before it is sent (by which
      ``poll`` finds it, or tells that it is gone);
    - after that: the next try of the task waits for the job and collects; another run cancels it and asks the table;
    - between the end of the job and ``collect``, or in ``collect``: ``collect`` is done again. It changes nothing but
      the record and the journal.
    """

    def submit(self, request: OperationRequest, context: OperationContext) -> RemoteJob | OperationResult:
        """Guard, and start the job. Before it may commit anything, it has been told to
        :meth:`OperationContext.remote_job`, with its state, and :meth:`OperationContext.committing`.

        :returns: the job; or a result, when nothing is to be done.
        :raises FloeError: as ``execute``; no job runs then.
        """

    def poll(self, job: RemoteJob) -> JobStatus:
        """How the job stands: one cheap look, from any process, that takes a few seconds at most.

        Also what keeps a job going that its engine drops when nobody asks for it. Asking for a job that is over is
        harmless, and answers the same again.

        :raises EngineUnavailable: when the engine does not answer now.
        """

    def collect(self, request: OperationRequest, context: OperationContext, status: JobStatus) -> OperationResult:
        """Check what a job that is over has done, and tell it in numbers. Not called while it is running.

        Where the engine says that it failed or is gone, the table is asked whether it committed all the same.

        :raises FloeError: as ``execute``: the job's own error, or what is wrong with what it did.
        """
