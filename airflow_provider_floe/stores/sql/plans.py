"""Plans and the byte budget they reserve."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection, func, insert, select, update

from airflow_provider_floe.planning.model import Plan
from airflow_provider_floe.stores.sql.expressions import database_time, dump, insert_new, load, serialise
from airflow_provider_floe.stores.sql.queries import Queries, document_of
from airflow_provider_floe.stores.sql.schema import plans, reservations

BUDGET_LOCK = 2
_HOUR = timedelta(hours=1)


class PlanQueries(Queries):
    """Implements :class:`~airflow_provider_floe.stores.protocols.PlanStore`."""

    def save_plan(self, plan: Plan) -> None:
        """Immutable once saved; reserves nothing.

        :raises ValueError: when another plan of this id is there.
        """
        with self._database.write() as connection:
            _save(connection, plan)

    def plan(self, plan_id: str) -> Plan:
        """:raises KeyError: when there is none."""
        with self._database.read() as connection:
            return load(Plan, document_of(connection, plans, plan_id))

    def plans(self, limit: int = 50) -> list[Plan]:
        """Newest first."""
        query = select(plans.c.document).order_by(plans.c.created_at.desc(), plans.c.seq.desc()).limit(limit)
        with self._database.read() as connection:
            documents = connection.execute(query).scalars().all()
        return [load(Plan, document) for document in documents]

    def bytes_reserved(self, window: timedelta = _HOUR) -> int:
        """Sum of what plans reserved in the window, settled where the outcome is known."""
        with self._database.read() as connection:
            return _reserved(connection, window)

    def reserve_and_save(self, plan: Plan, *, max_bytes: int, window: timedelta = _HOUR) -> bool:
        """In one transaction: save the plan and reserve the estimated input bytes of its RUN items.

        :returns: False, with nothing saved, when that would exceed ``max_bytes`` within the window (0 = unlimited).
        :raises ValueError: when another plan of this id is there.
        """
        wanted = sum(item.estimate.bytes_in for item in plan.to_run)
        with self._database.write() as connection:
            serialise(connection, BUDGET_LOCK)
            if max_bytes and wanted and _reserved(connection, window) + wanted > max_bytes:
                return False
            if _save(connection, plan) and plan.to_run:
                now = connection.execute(select(database_time())).scalar_one()
                connection.execute(
                    insert(reservations),
                    [
                        {"item_id": item.id, "plan_id": plan.id, "reserved_at": now, "bytes": item.estimate.bytes_in}
                        for item in plan.to_run
                    ],
                )
            return True

    def settle_bytes(self, item_id: str, actual_bytes: int) -> None:
        """Replace an item's reservation by what it really read; nothing happens when it reserved nothing."""
        with self._database.write() as connection:
            connection.execute(update(reservations).where(reservations.c.item_id == item_id).values(bytes=actual_bytes))


def _reserved(connection: Connection, window: timedelta) -> int:
    query = select(func.coalesce(func.sum(reservations.c.bytes), 0)).where(
        reservations.c.reserved_at > database_time(-window)
    )
    return int(connection.execute(query).scalar_one())


def _save(connection: Connection, plan: Plan) -> bool:
    document = dump(plan)
    if insert_new(connection, plans, {"id": plan.id, "created_at": plan.created_at, "document": document}):
        return True
    if document_of(connection, plans, plan.id) != document:
        raise ValueError(f"plan {plan.id} is saved already and cannot be changed: make a new plan with a new id")
    return False
