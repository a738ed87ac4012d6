"""A Floe store on PostgreSQL with very many operation records, loaded in bulk."""

from __future__ import annotations

from datetime import timedelta

from harness.postgres import PostgreSQL
from harness.store_documents import NOON, record

from airflow_provider_floe.stores.protocols import FloeStore, OperationStatus
from airflow_provider_floe.tables import TableRef

TABLES = 10_000


def table(number: int) -> TableRef:
    """One of the tables that the records are spread over."""
    return TableRef("lake", ("db",), f"t{number}")


def load_records(server: PostgreSQL, store: FloeStore, schema: str, count: int) -> None:
    """Put ``count`` finished records into the store, a second apart, 100 to a plan, over 10,000 tables."""
    began = NOON - timedelta(days=400)
    template = record(OperationStatus.SUCCESS, began)
    store.save_operation(template)
    operations = f"{schema}.floe_operations"
    server.execute(
        f"""
        INSERT INTO {operations}
            (id, table_key, operation, status, plan_id, started_at, finished_at, changed, document)
        SELECT 'bulk-' || n, 'lake.db.t' || n % {TABLES}, operation,
            CASE WHEN n % 50 = 0 THEN 'FAILED' ELSE 'SUCCESS' END, 'plan-' || n / 100,
            started_at + n * 1000000::bigint, started_at + n * 1000000::bigint + 500000, true,
            replace(document, id, 'bulk-' || n)
        FROM {operations}, generate_series(1, {count}) AS n
        WHERE id = '{template.id}'
        """
    )
    server.execute(f"ANALYZE {operations}")
