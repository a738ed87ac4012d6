"""An operation context that several threads may call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from threading import RLock
from typing import TYPE_CHECKING, Any

from airflow_provider_floe.engines.base import Deletion, OperationContext, TableLocation

if TYPE_CHECKING:
    from pyiceberg.table import Table


class Shared:
    """Lets one thread at a time through to the context, its journal included."""

    def __init__(self, context: OperationContext) -> None:
        self._context = context
        self._lock = RLock()

    @property
    def journal(self) -> Shared:
        """The write-ahead list, under the same lock."""
        return self

    def record_outputs(self, paths: Iterable[str]) -> None:
        """See :class:`~airflow_provider_floe.engines.base.FileJournal`."""
        with self._lock:
            self._context.journal.record_outputs(paths)

    def record_deletions(self, deletions: Sequence[Deletion]) -> None:
        """See :class:`~airflow_provider_floe.engines.base.FileJournal`."""
        with self._lock:
            self._context.journal.record_deletions(deletions)

    def mark_deleted(self, paths: Iterable[str]) -> None:
        """See :class:`~airflow_provider_floe.engines.base.FileJournal`."""
        with self._lock:
            self._context.journal.mark_deleted(paths)

    def recorded_deletions(self) -> Sequence[Deletion]:
        """See :class:`~airflow_provider_floe.engines.base.FileJournal`."""
        with self._lock:
            return self._context.journal.recorded_deletions()

    def now(self) -> datetime:
        """UTC."""
        return self._context.now()

    def load_table(self) -> Table:
        """The table, loaded anew."""
        with self._lock:
            return self._context.load_table()

    def checkpoint(self) -> None:
        """See :class:`~airflow_provider_floe.engines.base.OperationContext`."""
        with self._lock:
            self._context.checkpoint()

    def committing(self, detail: Mapping[str, Any]) -> None:
        """See :class:`~airflow_provider_floe.engines.base.OperationContext`."""
        with self._lock:
            self._context.committing(detail)

    def committed(self, detail: Mapping[str, Any]) -> None:
        """See :class:`~airflow_provider_floe.engines.base.OperationContext`."""
        with self._lock:
            self._context.committed(detail)

    def remote_job(self, job_id: str, *, url: str | None = None, state: Mapping[str, Any] | None = None) -> None:
        """See :class:`~airflow_provider_floe.engines.base.OperationContext`."""
        with self._lock:
            self._context.remote_job(job_id, url=url, state=state)

    def progress(self, done: int, total: int, unit: str) -> None:
        """See :class:`~airflow_provider_floe.engines.base.OperationContext`."""
        with self._lock:
            self._context.progress(done, total, unit)

    def other_tables(self) -> Sequence[TableLocation]:
        """See :class:`~airflow_provider_floe.engines.base.OperationContext`."""
        with self._lock:
            return self._context.other_tables()

    def dead_outputs(self) -> Sequence[str]:
        """See :class:`~airflow_provider_floe.engines.base.OperationContext`."""
        with self._lock:
            return self._context.dead_outputs()
