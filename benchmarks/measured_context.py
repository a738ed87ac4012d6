"""What an engine needs to run on its own in a benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pyiceberg.table import Table

from airflow_provider_floe.engines.base import Deletion, OperationRequest, TableLocation
from airflow_provider_floe.policies.model import OperationSettings
from airflow_provider_floe.tables import Operation, TableRef


class MeasuredContext:
    """An operation context without a Floe store.

    :ivar deleted: files that were deleted.
    """

    def __init__(self, table: Table, now: datetime) -> None:
        self._table = table
        self._now = now
        self.deleted = 0

    @property
    def journal(self) -> MeasuredContext:
        return self

    def record_outputs(self, paths: Iterable[str]) -> None:
        pass

    def record_deletions(self, deletions: Sequence[Deletion]) -> None:
        pass

    def mark_deleted(self, paths: Iterable[str]) -> None:
        self.deleted += len(list(paths))

    def now(self) -> datetime:
        return self._now

    def load_table(self) -> Table:
        return self._table.catalog.load_table(self._table.name())

    def checkpoint(self) -> None:
        pass

    def committing(self, detail: Mapping[str, Any]) -> None:
        pass

    def committed(self, detail: Mapping[str, Any]) -> None:
        pass

    def remote_job(self, job_id: str) -> None:
        pass

    def progress(self, done: int, total: int, unit: str) -> None:
        pass

    def other_tables(self) -> Sequence[TableLocation]:
        return ()

    def dead_outputs(self) -> Sequence[str]:
        return ()


def request(table: Table, operation: Operation, settings: OperationSettings) -> OperationRequest:
    """An operation on the table."""
    *namespace, name = table.name()
    return OperationRequest("benchmark", TableRef("lake", tuple(namespace), name), operation, settings)
