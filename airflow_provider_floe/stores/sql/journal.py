"""The write-ahead list of files. Everything goes in bulk: an operation may write and delete 100,000 files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Select, exc, func, insert, select, update

from airflow_provider_floe.engines.base import Deletion
from airflow_provider_floe.stores.protocols import JournalEntry, JournalKind, OperationStatus
from airflow_provider_floe.stores.sql.expressions import database_time, read_clock
from airflow_provider_floe.stores.sql.queries import CHUNK, Queries, table_key
from airflow_provider_floe.stores.sql.schema import journal, operations
from airflow_provider_floe.tables import TableRef

_INSERT_ROWS = 5000
T = TypeVar("T")


class JournalQueries(Queries):
    """Implements :class:`~airflow_provider_floe.stores.protocols.JournalStore`."""

    def record_outputs(self, operation_id: str, paths: Iterable[str]) -> None:
        """Before the files are written; all or none are recorded.

        :raises KeyError: when there is no such operation.
        """
        self._record(operation_id, ({"kind": JournalKind.OUTPUT.value, **_file(path)} for path in paths))

    def record_deletions(self, operation_id: str, deletions: Sequence[Deletion]) -> None:
        """Before the files are deleted or moved; all or none are recorded.

        :raises KeyError: when there is no such operation.
        """
        self._record(
            operation_id,
            (
                {
                    "kind": JournalKind.DELETION.value,
                    **_file(deletion.path),
                    "size_bytes": deletion.size_bytes,
                    "reason": deletion.reason,
                    "quarantined_to": deletion.quarantined_to,
                }
                for deletion in deletions
            ),
        )

    def mark_done(self, operation_id: str, kind: JournalKind, paths: Iterable[str]) -> None:
        """Deleted, moved or cleaned up; a file marked before keeps its time."""
        self._stamp(operation_id, kind, paths, "done_at")

    def mark_restored(self, operation_id: str, paths: Iterable[str]) -> None:
        """Moved back from quarantine."""
        self._stamp(operation_id, JournalKind.DELETION, paths, "restored_at")

    def journal(self, operation_id: str, kind: JournalKind | None = None) -> list[JournalEntry]:
        """In the order recorded."""
        query = select(journal).where(journal.c.operation_id == operation_id)
        if kind is not None:
            query = query.where(journal.c.kind == kind.value)
        return self._entries(query)

    def open_outputs(self, table: TableRef) -> list[JournalEntry]:
        """Outputs, not cleaned up, of operations on the table that ended FAILED or INTERRUPTED."""
        dead = (OperationStatus.FAILED.value, OperationStatus.INTERRUPTED.value)
        return self._entries(
            select(journal)
            .join(operations, operations.c.id == journal.c.operation_id)
            .where(
                operations.c.table_key == table_key(table),
                operations.c.status.in_(dead),
                journal.c.kind == JournalKind.OUTPUT.value,
                journal.c.done_at.is_(None),
            )
        )

    def _record(self, operation_id: str, rows: Iterator[dict[str, Any]]) -> None:
        with self._database.write() as connection:
            common = {"operation_id": operation_id, "recorded_at": read_clock(connection)}
            for chunk in _chunks(rows, _INSERT_ROWS):
                try:
                    connection.execute(insert(journal), [{**row, **common} for row in chunk])
                except exc.IntegrityError:
                    raise KeyError(operation_id) from None

    def _stamp(self, operation_id: str, kind: JournalKind, paths: Iterable[str], column: str) -> None:
        with self._database.write() as connection:
            for chunk in _chunks(paths, CHUNK):
                connection.execute(
                    update(journal)
                    .where(
                        journal.c.operation_id == operation_id,
                        journal.c.path_digest.in_([_digest(path) for path in chunk]),
                        journal.c.path.in_(chunk),
                        journal.c.kind == kind.value,
                    )
                    .values({column: func.coalesce(journal.c[column], database_time())})
                )

    def _entries(self, query: Select[Any]) -> list[JournalEntry]:
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(journal.c.seq)).all()
        return [
            JournalEntry(
                operation_id=row.operation_id,
                kind=JournalKind(row.kind),
                path=row.path,
                size_bytes=row.size_bytes,
                reason=row.reason,
                quarantined_to=row.quarantined_to,
                recorded_at=row.recorded_at,
                done_at=row.done_at,
                restored_at=row.restored_at,
            )
            for row in rows
        ]


def _file(path: str) -> dict[str, Any]:
    return {"path": path, "path_digest": _digest(path), "size_bytes": 0, "reason": "", "quarantined_to": None}


def _digest(path: str) -> int:
    return int.from_bytes(blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big", signed=True)


def _chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(values)
    while chunk := list(islice(iterator, size)):
        yield chunk
