"""What operation records add up to, in two queries for all operations of a table."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, select

from airflow_provider_floe.planning.model import OperationHistory
from airflow_provider_floe.stores.protocols import OperationStatus
from airflow_provider_floe.stores.sql.queries import table_key
from airflow_provider_floe.stores.sql.schedules import throttled_last
from airflow_provider_floe.stores.sql.schema import operations
from airflow_provider_floe.tables import Operation, TableRef

FAILING = (OperationStatus.FAILED, OperationStatus.PARTIAL_FAILURE, OperationStatus.INTERRUPTED)
"""A run that was killed counts as a failure: one that dies of its memory must be backed off from, too."""

EXECUTED = (OperationStatus.SUCCESS, *FAILING, OperationStatus.UNKNOWN)
"""UNKNOWN is a run, but neither success nor failure until it is settled."""


def read_history(connection: Connection, table: TableRef) -> dict[Operation, OperationHistory]:
    """The history of every operation on the table, those without runs included.

    Failures are counted back to the last success; runs without change back to any other run.
    """
    throttled = throttled_last(connection, table)
    found = {Operation(row.operation): row for row in connection.execute(_query(table))}
    history = {}
    for operation in Operation:
        row = found.get(operation)
        if row is None:
            history[operation] = OperationHistory(last_slot_throttled=operation in throttled)
        else:
            history[operation] = OperationHistory(
                runs=row.runs,
                failures=row.failures,
                last_run_at=row.last_run_at,
                last_success_at=row.last_success_at,
                last_failure_at=row.last_failure_at,
                consecutive_failures=row.failing_in_a_row,
                consecutive_zero_changes=row.unchanged_in_a_row,
                failures_since_success=row.failing_in_a_row,
                last_slot_throttled=operation in throttled,
            )
    return history


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=0))


def _query(table: TableRef) -> Select[Any]:
    ended_at = func.coalesce(operations.c.finished_at, operations.c.started_at)
    success = operations.c.status == OperationStatus.SUCCESS.value
    unchanged = and_(success, operations.c.changed.is_(False))
    up_to_here: dict[str, Any] = {
        "partition_by": operations.c.operation,
        "order_by": (ended_at.desc(), operations.c.seq.desc()),
        "rows": (None, 0),
    }
    # each run, with the number of successes, and of runs that were not without change, from the newest run to it
    runs = (
        select(
            operations.c.operation,
            operations.c.status,
            ended_at.label("ended_at"),
            _count(success).over(**up_to_here).label("successes"),
            func.sum(case((unchanged, 0), else_=1)).over(**up_to_here).label("others"),
        )
        .where(
            operations.c.table_key == table_key(table),
            operations.c.status.in_([status.value for status in EXECUTED]),
        )
        .subquery()
    )
    failing = runs.c.status.in_([status.value for status in FAILING])
    return select(
        runs.c.operation,
        func.count().label("runs"),
        _count(failing).label("failures"),
        func.max(runs.c.ended_at).label("last_run_at"),
        func.max(case((runs.c.status == OperationStatus.SUCCESS.value, runs.c.ended_at))).label("last_success_at"),
        func.max(case((failing, runs.c.ended_at))).label("last_failure_at"),
        _count(and_(failing, runs.c.successes == 0)).label("failing_in_a_row"),
        _count(runs.c.others == 0).label("unchanged_in_a_row"),
    ).group_by(runs.c.operation)
