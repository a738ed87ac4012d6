"""What an engine gets from the use case that runs it: journal, fence, checkpoint, progress."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_floe.engines.base import Deletion, TableLocation
from airflow_provider_floe.errors import JobTakenOver, LeaseLost, OperationCancelled
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.events import EventKind, operation_event
from airflow_provider_floe.maintenance.leases import LeaseKeeper
from airflow_provider_floe.maintenance.locations import TableLocations
from airflow_provider_floe.stores.protocols import JournalEntry, JournalKind, OperationRecord, OperationStatus
from airflow_provider_floe.tables import TableRef
from airflow_provider_floe.text import bytes_text

if TYPE_CHECKING:
    from pyiceberg.table import Table

log = logging.getLogger(__name__)

_PROGRESS_SECONDS = 10.0


class StoreJournal:
    """The write-ahead list of one operation, kept in the Floe store."""

    def __init__(self, env: Environment, operation_id: str, keeper: LeaseKeeper | None) -> None:
        self._store = env.store
        self._operation_id = operation_id
        self._keeper = keeper

    def record_outputs(self, paths: Iterable[str]) -> None:
        """Before the files are written."""
        self._store.record_outputs(self._operation_id, paths)

    def record_deletions(self, deletions: Sequence[Deletion]) -> None:
        """Before the files are deleted or moved; the fence of a batch of deletions.

        :raises LeaseLost: when the lease ran out or another run took it; then nothing may be deleted.
        """
        _required(self._keeper).verify()
        self._store.record_deletions(self._operation_id, deletions)

    def mark_deleted(self, paths: Iterable[str]) -> None:
        """After they are gone or moved."""
        self._store.mark_done(self._operation_id, JournalKind.DELETION, paths)

    def recorded_deletions(self) -> Sequence[Deletion]:
        """What this operation has put on record, in whatever process."""
        return [
            Deletion(entry.path, entry.size_bytes, entry.reason, entry.quarantined_to)
            for entry in self._store.journal(self._operation_id, JournalKind.DELETION)
        ]


class RunningOperation:
    """The :class:`~airflow_provider_floe.engines.base.OperationContext` of one running operation.

    :param keeper: of the table's lease; None for a task that only helps to write files: nothing may be committed or
        deleted then.
    """

    def __init__(
        self,
        env: Environment,
        record: OperationRecord,
        keeper: LeaseKeeper | None,
        locations: TableLocations,
        *,
        deadline: datetime | None,
        cancelled: Callable[[], bool],
    ) -> None:
        self._env = env
        self._record = record
        self._keeper = keeper
        self._locations = locations
        self._deadline = deadline
        self._cancelled = cancelled
        self._progress_logged_at = 0.0
        self.journal = StoreJournal(env, record.id, keeper)

    @property
    def _table(self) -> TableRef:
        return self._record.table.ref()

    def now(self) -> datetime:
        """UTC; the earlier of the worker's clock and the store's, so that a clock that is ahead ages no file."""
        return min(self._env.now(), self._env.store.now())

    def load_table(self) -> Table:
        """The table, loaded from the catalog anew."""
        return self._env.catalog(self._table.catalog).load(self._table)

    def checkpoint(self) -> None:
        """:raises LeaseLost: or OperationCancelled, see the protocol."""
        try:
            if self._keeper is not None:
                self._keeper.check()
        except LeaseLost as error:
            if self._env.store.operation(self._record.id).lease_token != _required(self._keeper).lease.token:
                raise JobTakenOver(str(error)) from error
            raise
        if self._cancelled():
            raise OperationCancelled(f"{self._record.operation} on {self._table} was cancelled")
        if self._deadline is not None and self._env.now() >= self._deadline:
            raise OperationCancelled(
                f"{self._record.operation} on {self._table} is past its deadline {self._deadline:%Y-%m-%d %H:%M} UTC "
                "(the schedule's timeout)"
            )

    def committing(self, detail: Mapping[str, Any]) -> None:
        """The fence: to COMMITTING only while the lease is ours; from COMMITTING too, when a commit is tried again."""
        self.checkpoint()
        self._env.store.transition(
            self._record.id,
            expect=(OperationStatus.RUNNING, OperationStatus.COMMITTING),
            to=OperationStatus.COMMITTING,
            lease=_required(self._keeper).lease,
            commit_detail=dict(detail),
        )

    def committed(self, detail: Mapping[str, Any]) -> None:
        """COMMITTING -> RUNNING, with what was committed on record."""
        self._env.store.transition(
            self._record.id,
            expect=(OperationStatus.COMMITTING,),
            to=OperationStatus.RUNNING,
            commit_detail={**detail, "committed": True},
        )

    def remote_job(self, job_id: str, *, url: str | None = None, state: Mapping[str, Any] | None = None) -> None:
        """Put the job elsewhere on record, while the lease is ours."""
        told: dict[str, Any] = {"remote_job": job_id}
        if url is not None:
            told["remote_url"] = url
        if state is not None:
            told["remote_state"] = dict(state)
        committing = self._env.store.operation(self._record.id).status is OperationStatus.COMMITTING
        status = OperationStatus.COMMITTING if committing else OperationStatus.RUNNING
        record = self._env.store.transition(
            self._record.id, expect=(status,), to=status, lease=_required(self._keeper).lease, **told
        )
        if url is not None and url != self._record.remote_url:
            self._env.emit(operation_event(EventKind.JOB_SENT, record, self._env.now(), f"runs as job {job_id}: {url}"))
        self._record = record

    def progress(self, done: int, total: int, unit: str) -> None:
        """Log at most every ten seconds, and at the end."""
        if done < total and time.monotonic() - self._progress_logged_at < _PROGRESS_SECONDS:
            return
        self._progress_logged_at = time.monotonic()
        share = f" ({100 * done / total:.0f} %)" if total else ""
        of = f"{bytes_text(done)} of {bytes_text(total)}" if unit == "bytes" else f"{done:,} of {total:,} {unit}"
        log.info("%s on %s: %s done%s", self._record.operation, self._table, of, share)

    def other_tables(self) -> Sequence[TableLocation]:
        """Locations of all other tables of the catalog."""
        return self._locations.others(self._table)

    def dead_outputs(self) -> Sequence[str]:
        """Outputs of operations on this table that died before their commit began."""
        return [entry.path for entry in dead_outputs(self._env, self._table)]


def _required(keeper: LeaseKeeper | None) -> LeaseKeeper:
    if keeper is None:
        raise LeaseLost("a task that helps to write has no lease: it may neither commit nor delete")
    return keeper


def dead_outputs(env: Environment, table: TableRef) -> list[JournalEntry]:
    """Journal entries of files whose operation is proven dead and never began to commit.

    An operation that died between the start of its commit and the catalog's answer is left out: the commit
    may still land, so its files are left to the age guard of orphan removal.
    """
    safe: dict[str, bool] = {}
    found = []
    for entry in env.store.open_outputs(table):
        if entry.operation_id not in safe:
            record = env.store.operation(entry.operation_id)
            safe[entry.operation_id] = record.status.finished and not record.commit_detail
        if safe[entry.operation_id]:
            found.append(entry)
    return found
