"""The write-ahead list of files. Everything goes in bulk: an operation may write and delete 100,000 files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Select, exc, func, select, update

from airflow_provider_floe.engines.base import Deletion
from airflow_provider_floe.stores.protocols import JournalEntry, JournalKind, OperationStatus
from airflow_provider_floe.stores.sql.expressions import database_time, read_clock, upsert
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
        self._record(operation_id, JournalKind.OUTPUT, (Deletion(path, 0, "") for path in paths))

    def record_deletions(self, operation_id: str, deletions: Sequence[Deletion]) -> None:
        """Before the files are deleted or moved; all or none are recorded.

        A file that is recorded again before it is done gets the newer reason and place.

        :raises KeyError: when there is no such operation.
        """
        self._record(operation_id, JournalKind.DELETION, deletions)

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

    def _record(self, operation_id: str, kind: JournalKind, files: Iterable[Deletion]) -> None:
        with self._database.write() as connection:
            now = read_clock(connection)
            for chunk in _chunks(files, _INSERT_ROWS):
                rows = {
                    file.path: {
                        "operation_id": operation_id,
                        "kind": kind.value,
                        "path": file.path,
                        "file_key": _key(operation_id, kind, file.path),
                        "size_bytes": file.size_bytes,
                        "reason": file.reason,
                        "quarantined_to": file.quarantined_to,
                        "recorded_at": now,
                    }
                    for file in chunk
                }
                statement = upsert(connection, journal)
                statement = statement.on_conflict_do_update(
                    index_elements=[journal.c.file_key],
                    set_={name: statement.excluded[name] for name in ("size_bytes", "reason", "quarantined_to")},
                    where=journal.c.done_at.is_(None),
                )
                try:
                    connection.execute(statement, list(rows.values()))
                except exc.IntegrityError:
                    raise KeyError(operation_id) from None

    def _stamp(self, operation_id: str, kind: JournalKind, paths: Iterable[str], column: str) -> None:
        with self._database.write() as connection:
            for chunk in _chunks(paths, CHUNK):
                connection.execute(
                    update(journal)
                    .where(journal.c.file_key.in_([_key(operation_id, kind, path) for path in chunk]))
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


def _key(operation_id: str, kind: JournalKind, path: str) -> str:
    text = "\0".join((operation_id, kind.value, path))
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(values)
    while chunk := list(islice(iterator, size)):
        yield chunk
