"""Leases: one row per table; the database's clock says when it has run out."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

from sqlalchemy import ColumnElement, Connection, and_, delete, select, update

from airflow_provider_floe.errors import LeaseLost
from airflow_provider_floe.health.report import TableId
from airflow_provider_floe.stores.protocols import Lease
from airflow_provider_floe.stores.sql.expressions import database_time, upsert
from airflow_provider_floe.stores.sql.queries import Queries, table_key
from airflow_provider_floe.stores.sql.schema import leases
from airflow_provider_floe.tables import TableRef


class LeaseQueries(Queries):
    """Implements :class:`~airflow_provider_floe.stores.protocols.LeaseStore`."""

    def acquire(self, table: TableRef, holder: str, ttl: timedelta) -> Lease | None:
        """None while a lease stands, whoever holds it; an expired one is taken over with a new token."""
        token = uuid4().hex
        with self._database.write() as connection:
            statement = upsert(connection, leases).values(
                table_key=table_key(table), token=token, holder=holder, expires_at=database_time(ttl)
            )
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=[leases.c.table_key],
                    set_={
                        "token": statement.excluded.token,
                        "holder": statement.excluded.holder,
                        # computed after the wait for a competitor, not before it
                        "expires_at": database_time(ttl),
                    },
                    where=leases.c.expires_at <= database_time(),
                )
            )
            found = _find(connection, table)
            return found if found is not None and found.token == token else None

    def renew(self, lease: Lease, ttl: timedelta) -> Lease:
        """:raises LeaseLost: when it was taken over or has run out."""
        with self._database.write() as connection:
            renewed = connection.execute(update(leases).where(_held(lease)).values(expires_at=database_time(ttl)))
            if renewed.rowcount != 1:
                raise _lost(connection, lease)
            expires_at = connection.execute(select(leases.c.expires_at).where(_ours(lease))).scalar_one()
            return lease.model_copy(update={"expires_at": expires_at})

    def take_over(self, table: TableRef, token: str, holder: str, ttl: timedelta) -> Lease | None:
        """Take a lease by its token, expired or not; it has a new one then. None when that is not the lease."""
        new = uuid4().hex
        with self._database.write() as connection:
            taken = connection.execute(
                update(leases)
                .where(leases.c.table_key == table_key(table), leases.c.token == token)
                .values(token=new, holder=holder, expires_at=database_time(ttl))
            )
            return _find(connection, table) if taken.rowcount == 1 else None

    def release(self, lease: Lease) -> None:
        """Does nothing when it is no longer ours."""
        with self._database.write() as connection:
            connection.execute(delete(leases).where(_ours(lease)))

    def lease(self, table: TableRef) -> Lease | None:
        """The lease that stands now, expired or not."""
        with self._database.read() as connection:
            return _find(connection, table)

    def holds(self, lease: Lease) -> bool:
        """Whether it is still ours and has not run out."""
        with self._database.read() as connection:
            return connection.execute(select(leases.c.token).where(_held(lease))).first() is not None


def require_lease(connection: Connection, lease: Lease) -> None:
    """The fence: hold the lease's row until the transaction ends, so that nobody takes it over meanwhile.

    :raises LeaseLost: when it is no longer ours or has run out.
    """
    if connection.execute(select(leases.c.token).where(_held(lease)).with_for_update()).first() is None:
        raise _lost(connection, lease)


def _ours(lease: Lease) -> ColumnElement[bool]:
    return and_(leases.c.table_key == table_key(lease.table), leases.c.token == lease.token)


def _held(lease: Lease) -> ColumnElement[bool]:
    return and_(_ours(lease), leases.c.expires_at > database_time())


def _find(connection: Connection, table: TableRef) -> Lease | None:
    row = connection.execute(select(leases).where(leases.c.table_key == table_key(table))).first()
    if row is None:
        return None
    return Lease(table=TableId.of(table), token=row.token, holder=row.holder, expires_at=row.expires_at)


def _lost(connection: Connection, lease: Lease) -> LeaseLost:
    table = lease.table.ref()
    now = _find(connection, table)
    if now is None:
        why = "it was released, or taken over by a run that has ended since"
    elif now.token != lease.token:
        why = f"{now.holder} has taken it over"
    else:
        why = f"it ran out at {now.expires_at:%Y-%m-%d %H:%M:%S} UTC"
    return LeaseLost(f"{lease.holder} no longer holds the lease of {table}: {why}; nothing more is changed by this run")
