"""Schedule executions: one row per (table, operation, slot)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, func, select

from airflow_provider_floe.stores.protocols import ScheduleExecution, SlotOutcome
from airflow_provider_floe.stores.sql.expressions import dump, load, upsert, written
from airflow_provider_floe.stores.sql.queries import Queries, table_key
from airflow_provider_floe.stores.sql.schema import slots
from airflow_provider_floe.tables import Operation, TableRef


class ScheduleQueries(Queries):
    """Implements :class:`~airflow_provider_floe.stores.protocols.ScheduleStore`."""

    def record_slot(self, execution: ScheduleExecution) -> bool:
        """Replace what was said of this slot before; False, with nothing changed, when it is already consumed."""
        with self._database.write() as connection:
            statement = upsert(connection, slots).values(
                table_key=table_key(execution.table),
                operation=execution.operation.value,
                slot=execution.slot,
                consumed=execution.outcome.consumes,
                outcome=execution.outcome.value,
                document=dump(execution),
            )
            return written(
                connection,
                statement.on_conflict_do_update(
                    index_elements=[slots.c.table_key, slots.c.operation, slots.c.slot],
                    set_={name: statement.excluded[name] for name in ("consumed", "outcome", "document")},
                    where=slots.c.consumed.is_(False),
                ),
            )

    def consumed_slot(self, table: TableRef, operation: Operation) -> datetime | None:
        """The newest consumed slot, UTC."""
        query = select(func.max(slots.c.slot)).where(_of(table, operation), slots.c.consumed.is_(True))
        with self._database.read() as connection:
            found: datetime | None = connection.execute(query).scalar_one()
        return found

    def last_slot(self, table: TableRef, operation: Operation) -> ScheduleExecution | None:
        """The newest slot's execution, consumed or not."""
        found = self.slots(table, operation, limit=1)
        return found[0] if found else None

    def slots(self, table: TableRef, operation: Operation, limit: int = 100) -> list[ScheduleExecution]:
        """Newest slot first."""
        query = select(slots.c.document).where(_of(table, operation)).order_by(slots.c.slot.desc()).limit(limit)
        with self._database.read() as connection:
            documents = connection.execute(query).scalars().all()
        return [load(ScheduleExecution, document) for document in documents]


def throttled_last(connection: Connection, table: TableRef) -> set[Operation]:
    """The operations whose newest consumed slot was throttled; a slot still open says nothing yet."""
    last = (
        select(slots.c.operation, func.max(slots.c.slot).label("slot"))
        .where(slots.c.table_key == table_key(table), slots.c.consumed.is_(True))
        .group_by(slots.c.operation)
        .subquery()
    )
    query = (
        select(slots.c.operation)
        .join(last, and_(slots.c.operation == last.c.operation, slots.c.slot == last.c.slot))
        .where(slots.c.table_key == table_key(table), slots.c.outcome == SlotOutcome.THROTTLED.value)
    )
    return {Operation(name) for name in connection.execute(query).scalars()}


def _of(table: TableRef, operation: Operation) -> ColumnElement[bool]:
    return and_(slots.c.table_key == table_key(table), slots.c.operation == operation.value)
