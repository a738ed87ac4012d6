from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from harness.postgres import PostgreSQL, postgresql
from harness.store_scale import TABLES, load_records, table
from sqlalchemy import event

from airflow_provider_floe.stores.open import open_store
from airflow_provider_floe.stores.protocols import OperationStatus
from airflow_provider_floe.stores.sql.store import SqlStore
from airflow_provider_floe.tables import Operation

pytestmark = pytest.mark.services

RECORDS = 200_000
UNSETTLED = [status for status in OperationStatus if not status.settled]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with postgresql() as running:
        yield running


@pytest.fixture(scope="module")
def store(server: PostgreSQL) -> Iterator[SqlStore]:
    opened = open_store(server.url())
    assert isinstance(opened, SqlStore)
    load_records(server, opened, "public", RECORDS)
    yield opened
    opened.close()


def scans(plan: dict[str, Any]) -> list[str]:
    """The tables that a query plan reads from end to end."""
    found = [plan["Relation Name"]] if plan["Node Type"] == "Seq Scan" else []
    return found + [name for below in plan.get("Plans", ()) for name in scans(below)]


@pytest.fixture
def scanned(store: SqlStore) -> Iterator[list[str]]:
    """Tables that the statements of the test read from end to end, by the server's own account."""
    found: list[str] = []
    explaining = False

    def explain(connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        nonlocal explaining
        if explaining or not statement.lstrip().upper().startswith(("SELECT", "UPDATE")) or "floe_" not in statement:
            return
        explaining = True
        try:
            answer = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar_one()
        finally:
            explaining = False
        plans = json.loads(answer) if isinstance(answer, str) else answer
        found.extend(scans(plans[0]["Plan"]))

    engine = store._database._readers
    event.listen(engine, "before_cursor_execute", explain)
    yield found
    event.remove(engine, "before_cursor_execute", explain)


def test_what_runs_ask_for_is_found_by_index(store: SqlStore, scanned: list[str]) -> None:
    assert len(store.operations()) == 100
    assert len(store.operations(table=table(7))) == RECORDS / TABLES
    assert len(store.operations(plan_id="plan-77")) == 100
    assert store.operations(statuses=UNSETTLED, limit=10_000) == []
    history = store.history(table(0))
    assert sum(one.runs for one in history.values()) == RECORDS / TABLES
    assert sum(one.failures for one in history.values()) == RECORDS / TABLES
    newest = store.operations(table=table(7), limit=1)[0]
    store.transition(newest.id, expect=[newest.status], to=newest.status, error="looked at")
    assert store.consumed_slot(table(7), Operation.REWRITE_DATA_FILES) is None
    assert "floe_operations" not in scanned


def test_retention_drops_what_is_older_and_keeps_the_rest(store: SqlStore) -> None:
    """The records ended a second apart: what goes is told by the clock, whatever the time of day."""
    began = store.operation("bulk-1").started_at
    keep = store.now() - began - timedelta(seconds=RECORDS / 2)
    older = (store.now() - timedelta(days=keep.days) - began).total_seconds()
    assert 0 < older < RECORDS

    gone = store.prune_operations(keep.days)

    assert older - 60 < gone < older + 60
    with pytest.raises(KeyError):
        store.operation("bulk-1")
    kept = store.operations(limit=2 * RECORDS)
    assert len(kept) + gone == RECORDS + 1  # and the one that the others were made from
    assert min(int(one.id.removeprefix("bulk-")) for one in kept) > older - 60
