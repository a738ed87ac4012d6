"""File groups that several tasks share: one row each, claimed for a time by the database's clock."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, exc, func, insert, or_, select, update

from airflow_provider_floe.errors import LeaseLost
from airflow_provider_floe.stores.protocols import FileGroup, OperationStatus
from airflow_provider_floe.stores.sql.expressions import database_time
from airflow_provider_floe.stores.sql.queries import Queries
from airflow_provider_floe.stores.sql.schema import file_groups, operations

_AT_WORK = (OperationStatus.RUNNING.value, OperationStatus.COMMITTING.value)


class FileGroupQueries(Queries):
    """Implements :class:`~airflow_provider_floe.stores.protocols.FileGroupStore`."""

    def offer_file_groups(self, operation_id: str, groups: Sequence[FileGroup]) -> None:
        """All or none.

        :raises KeyError: when there is no such operation.
        """
        rows = [{"operation_id": operation_id, **group.model_dump(exclude={"written"})} for group in groups]
        with self._database.write() as connection:
            try:
                if rows:
                    connection.execute(insert(file_groups), rows)
            except exc.IntegrityError:
                raise KeyError(operation_id) from None

    def claim_file_group(self, operation_id: str, worker: str, ttl: timedelta, *, before: int) -> int | None:
        """Take the first group below this number that is neither finished nor anybody's; None when there is none."""
        free = or_(file_groups.c.worker.is_(None), file_groups.c.expires_at <= database_time())
        first = (
            select(file_groups.c.number)
            .where(
                file_groups.c.operation_id == operation_id,
                file_groups.c.number < before,
                file_groups.c.written.is_(None),
                free,
            )
            .order_by(file_groups.c.number)
            .limit(1)
            .with_for_update(skip_locked=True)  # on PostgreSQL; SQLite has one writer at a time
        )
        with self._database.write() as connection:
            number: int | None = connection.execute(first).scalar_one_or_none()
            if number is not None:
                connection.execute(
                    update(file_groups)
                    .where(file_groups.c.operation_id == operation_id, file_groups.c.number == number)
                    .values(worker=worker, expires_at=database_time(ttl))
                )
            return number

    def renew_file_groups(self, operation_id: str, worker: str, ttl: timedelta) -> None:
        """Keep all that the worker has taken."""
        with self._database.write() as connection:
            connection.execute(
                update(file_groups).where(_taken(operation_id, worker)).values(expires_at=database_time(ttl))
            )

    def give_back_file_groups(self, operation_id: str, worker: str, number: int | None = None) -> None:
        """Leave a group, or all that the worker has taken, to others."""
        which = _taken(operation_id, worker)
        if number is not None:
            which = and_(which, file_groups.c.number == number)
        with self._database.write() as connection:
            connection.execute(update(file_groups).where(which).values(worker=None, expires_at=None))

    def finish_file_group(self, operation_id: str, worker: str, number: int, written: Mapping[str, Any]) -> None:
        """:raises LeaseLost: when it is not the worker's any more, or the operation is not at work."""
        at_work = select(operations.c.id).where(operations.c.id == operation_id, operations.c.status.in_(_AT_WORK))
        with self._database.write() as connection:
            done = connection.execute(
                update(file_groups)
                .where(_taken(operation_id, worker), file_groups.c.number == number, at_work.exists())
                .values(written=json.dumps(written))
            )
            if done.rowcount != 1:
                raise LeaseLost(
                    f"file group {number} of operation {operation_id} was given to another task, or the operation is "
                    "over: what this task wrote for it does not count"
                )

    def unfinished_file_groups(self, operation_id: str, *, before: int) -> int:
        """How many groups below this number are not finished."""
        query = select(func.count()).where(
            file_groups.c.operation_id == operation_id, file_groups.c.number < before, file_groups.c.written.is_(None)
        )
        with self._database.read() as connection:
            return int(connection.execute(query).scalar_one())

    def file_groups(self, operation_id: str) -> list[FileGroup]:
        """By number."""
        query = select(file_groups).where(file_groups.c.operation_id == operation_id).order_by(file_groups.c.number)
        with self._database.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [
            FileGroup.model_validate(
                {
                    **{name: row[name] for name in FileGroup.model_fields if name != "written"},
                    "written": None if row["written"] is None else json.loads(row["written"]),
                }
            )
            for row in rows
        ]

    def drop_file_groups(self, operation_id: str) -> None:
        """When the operation is over."""
        with self._database.write() as connection:
            connection.execute(delete(file_groups).where(file_groups.c.operation_id == operation_id))


def _taken(operation_id: str, worker: str) -> ColumnElement[bool]:
    """The groups that a worker has and has not finished."""
    return and_(
        file_groups.c.operation_id == operation_id,
        file_groups.c.worker == worker,
        file_groups.c.written.is_(None),
    )
