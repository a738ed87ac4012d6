"""Operation records: their life, and what planning learns from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, delete, func, select, update

from airflow_provider_floe.errors import LeaseLost
from airflow_provider_floe.planning.model import OperationHistory
from airflow_provider_floe.stores.protocols import Lease, OperationRecord, OperationStatus
from airflow_provider_floe.stores.sql.expressions import database_time, dump, insert_new, load, read_clock
from airflow_provider_floe.stores.sql.history import read_history
from airflow_provider_floe.stores.sql.leases import require_lease
from airflow_provider_floe.stores.sql.queries import Queries, document_of, table_key
from airflow_provider_floe.stores.sql.schema import operations, plans, slots
from airflow_provider_floe.tables import Operation, TableRef

_FIXED = ("id", "table", "operation", "status")
_PRUNABLE = tuple(
    status.value for status in OperationStatus if status.finished and status is not OperationStatus.UNKNOWN
)
"""UNKNOWN records stay until somebody settles them."""


class OperationQueries(Queries):
    """Implements :class:`~airflow_provider_floe.stores.protocols.OperationStore`."""

    def save_operation(self, record: OperationRecord) -> None:
        """Create.

        :raises ValueError: when a record of this id is there.
        """
        with self._database.write() as connection:
            if not insert_new(connection, operations, _row(record)):
                raise ValueError(f"operation {record.id} is recorded already: change it with transition()")

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

        A record that comes to its end without ``finished_at`` gets the database's time.

        :param lease: when given, the transition also requires that this lease is still held (the fence).
        :raises LeaseLost: when the lease ran out, was taken over, or the status was not an expected one.
        :raises KeyError: when there is no such record.
        :raises ValueError: when ``changes`` names a field that records do not have or that never changes, or when the
            lease is another table's.
        """
        for name in _FIXED:
            if name in changes:
                raise ValueError(f"{name} of an operation record cannot be changed")
        with self._database.write() as connection:
            record = _locked(connection, operation_id)
            if lease is not None:
                if lease.table != record.table:
                    raise ValueError(f"operation {operation_id} is on {record.table.ref()}, not {lease.table.ref()}")
                require_lease(connection, lease)
            if record.status not in expect:
                raise LeaseLost(
                    f"operation {operation_id} on {record.table.ref()} is {record.status}, not "
                    f"{' or '.join(expect)}: another run has settled it; nothing more is changed by this run"
                )
            changed = OperationRecord.model_validate({**dict(record), **changes, "status": to})
            if to.finished and changed.finished_at is None:
                changed = changed.model_copy(update={"finished_at": read_clock(connection)})
            connection.execute(update(operations).where(operations.c.id == operation_id).values(_row(changed)))
            return changed

    def operation(self, operation_id: str) -> OperationRecord:
        """:raises KeyError: when there is none."""
        with self._database.read() as connection:
            return load(OperationRecord, document_of(connection, operations, operation_id))

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
        query = select(operations.c.document)
        if table is not None:
            query = query.where(operations.c.table_key == table_key(table))
        if operation is not None:
            query = query.where(operations.c.operation == operation.value)
        if plan_id is not None:
            query = query.where(operations.c.plan_id == plan_id)
        if statuses is not None:
            query = query.where(operations.c.status.in_([status.value for status in statuses]))
        query = query.order_by(operations.c.started_at.desc(), operations.c.seq.desc()).limit(limit)
        with self._database.read() as connection:
            documents = connection.execute(query).scalars().all()
        return [load(OperationRecord, document) for document in documents]

    def history(self, table: TableRef) -> Mapping[Operation, OperationHistory]:
        """Aggregated over the records kept, for every operation."""
        with self._database.read() as connection:
            return read_history(connection, table)

    def prune_operations(self, keep_days: int) -> int:
        """Drop finished records, their journal included; returns how many.

        With them go plans of that age that no record names any more, and schedule executions older than both that age
        and the newest consumed slot, which decides what is due. UNKNOWN records stay until they are settled.
        """
        age = -timedelta(days=keep_days)
        with self._database.write() as connection:
            gone = connection.execute(
                delete(operations).where(
                    operations.c.status.in_(_PRUNABLE), operations.c.finished_at < database_time(age)
                )
            ).rowcount
            named = select(operations.c.id).where(operations.c.plan_id == plans.c.id).exists()
            connection.execute(delete(plans).where(plans.c.created_at < database_time(age), ~named))
            other = slots.alias()
            newest_consumed = (
                select(func.max(other.c.slot))
                .where(
                    and_(
                        other.c.table_key == slots.c.table_key,
                        other.c.operation == slots.c.operation,
                        other.c.consumed.is_(True),
                    )
                )
                .scalar_subquery()
            )
            connection.execute(delete(slots).where(slots.c.slot < database_time(age), slots.c.slot < newest_consumed))
            return gone


def _locked(connection: Connection, operation_id: str) -> OperationRecord:
    query = select(operations.c.document).where(operations.c.id == operation_id).with_for_update()
    document: str | None = connection.execute(query).scalar_one_or_none()
    if document is None:
        raise KeyError(operation_id)
    return load(OperationRecord, document)


def _row(record: OperationRecord) -> dict[str, str | datetime | bool | None]:
    return {
        "id": record.id,
        "table_key": table_key(record.table),
        "operation": record.operation.value,
        "status": record.status.value,
        "plan_id": record.plan_id,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "changed": None if record.result is None else record.result.changed,
        "document": dump(record),
    }
