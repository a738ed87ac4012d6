"""Builds the demo's lakehouse: nine tables, seven of them ill, each in its own way; the same rows every time."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
from harness.merge_on_read import position_delete
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.expressions import EqualTo
from pyiceberg.table import Table

CATALOG = "lake"
TARGET_FILE_SIZE = "write.target-file-size-bytes"
ORPHAN_AGE_DAYS = 10


def catalog_properties(root: Path) -> dict[str, str]:
    """What pyiceberg, and so the Airflow connection, needs to open the lakehouse."""
    return {"type": "sql", "uri": f"sqlite:///{root}/catalog.db", "warehouse": f"file://{root}/warehouse"}


def open_lakehouse(root: Path) -> SqlCatalog:
    """The catalog of a lakehouse that :func:`build` made."""
    return SqlCatalog(CATALOG, **catalog_properties(root))


def build(root: Path) -> SqlCatalog:
    """Make the lakehouse anew under ``root``."""
    shutil.rmtree(root, ignore_errors=True)
    (root / "warehouse").mkdir(parents=True)
    catalog = open_lakehouse(root)
    for namespace in ("web", "sales", "ops", "ops.audit", "scratch"):
        catalog.create_namespace(namespace)
    for make in MAKERS:
        make(catalog)
    return catalog


def clicks(catalog: SqlCatalog) -> None:
    """Small files: a stream that lands every few minutes."""
    rows = _rows(
        """
        SELECT i AS click_id, DATE '2026-03-01' + CAST(i // 60000 AS INTEGER) AS day, r(i, 1) % 40000 AS visitor_id,
               '/p/' || (r(i, 2) % 900) AS page, ['DE', 'FR', 'US', 'JP', 'BR'][r(i, 3) % 5 + 1] AS country,
               CASE WHEN r(i, 4) % 3 > 0 THEN 'https://ref' || (r(i, 4) % 50) || '.example' END AS referrer,
               CAST(r(i, 5) % 90000 AS INTEGER) AS duration_ms
        FROM range(240000) t(i)
        """
    )
    _write_files(_create(catalog, "web.clicks", rows, partition_by="day"), rows, arrow_bytes_per_file=150_000)


def sessions(catalog: SqlCatalog) -> None:
    """Snapshots: every few minutes the counts of one device class are written again."""
    select = """
        SELECT ['desktop', 'phone', 'tablet'][i % 3 + 1] AS device, r(i, 11) AS session_id,
               r(i, {round}) % 400 AS page_views, r(i, 12) % 7200 AS seconds
        FROM range(24000) t(i)
    """
    table = _create(catalog, "web.sessions", _rows(select.format(round=0)), partition_by="device")
    table.append(_rows(select.format(round=0)))
    devices = ("desktop", "phone", "tablet")
    for number in range(1, 31):
        device = devices[number % 3]
        fresh = _rows(f"SELECT * FROM ({select.format(round=number)}) WHERE device = '{device}'")
        table.overwrite(fresh, overwrite_filter=EqualTo("device", device))


def pages(catalog: SqlCatalog) -> None:
    """Skew: one site has nearly all of the files. No operation can cure that, so it is reported only."""
    rows = _rows(
        """
        SELECT CASE WHEN i < 80000 THEN 'shop' ELSE ['blog', 'help', 'jobs'][i % 3 + 1] END AS site,
               '/page/' || i AS path, md5(CAST(i AS VARCHAR)) AS content_digest, r(i, 21) % 100000 AS bytes
        FROM range(92000) t(i)
        """
    )
    table = _create(catalog, "web.pages", rows, partition_by="site")
    _write_files(table, rows, arrow_bytes_per_file=320_000)
    sizes = table.inspect.files().column("file_size_in_bytes").to_pylist()
    _set(table, {TARGET_FILE_SIZE: str(max(sizes))})


def orders(catalog: SqlCatalog) -> None:
    """Position deletes: cancelled orders, deleted by merge-on-read writers."""
    rows = _rows(
        """
        SELECT i AS order_id, ['north', 'south', 'east', 'west'][i % 4 + 1] AS region, r(i, 31) % 20000 AS customer_id,
               CAST((r(i, 32) % 500000) / 100.0 AS DECIMAL(12, 2)) AS amount,
               TIMESTAMP '2026-01-01' + to_seconds(i * 37) AS ordered_at
        FROM range(120000) t(i)
        """
    )
    table = _create(
        catalog, "sales.orders", rows, partition_by="region", properties={"write.delete.mode": "merge-on-read"}
    )
    _write_files(table, rows, arrow_bytes_per_file=400_000)
    files = [task.file for task in table.scan().plan_files()]
    for evening in range(5):
        position_delete(table, {file.file_path: range(evening * 3, file.record_count, 50) for file in files})


def returns(catalog: SqlCatalog) -> None:
    """Orphans: what writers left behind that died before their commit, ten days ago and just now."""
    rows = _rows(
        """
        SELECT i AS return_id, r(i, 41) % 120000 AS order_id, 'reason ' || (r(i, 42) % 12) AS reason,
               DATE '2026-02-01' + CAST(r(i, 43) % 28 AS INTEGER) AS returned_on
        FROM range(30000) t(i)
        """
    )
    table = _create(catalog, "sales.returns", rows)
    _write_files(table, rows, arrow_bytes_per_file=2_000_000)
    data = Path(table.location().removeprefix("file://")) / "data"
    written = next(data.glob("*.parquet"))
    long_ago = time.time() - ORPHAN_AGE_DAYS * 86_400
    for number in range(9):
        orphan = data / f"00000-{number}-5f0e9c1a-abandoned.parquet"
        shutil.copyfile(written, orphan)
        if number >= 2:  # the other two are young, as those of a writer at work would be
            os.utime(orphan, (long_ago, long_ago))


def customers(catalog: SqlCatalog) -> None:
    """Healthy."""
    rows = _rows(
        """
        SELECT i AS customer_id, 'Customer ' || i AS name, 'c' || md5(CAST(i AS VARCHAR)) || '@example.org' AS email,
               ['bronze', 'silver', 'gold'][r(i, 51) % 3 + 1] AS tier
        FROM range(20000) t(i)
        """
    )
    _create(catalog, "sales.customers", rows).append(rows)


def broken(catalog: SqlCatalog) -> None:
    """Its metadata file was cut short."""
    rows = _rows("SELECT i AS refund_id, r(i, 61) % 900 AS amount FROM range(1000) t(i)")
    table = _create(catalog, "sales.broken", rows)
    table.append(rows)
    metadata = Path(table.metadata_location.removeprefix("file://"))
    metadata.write_bytes(metadata.read_bytes()[:500])


def audit_events(catalog: SqlCatalog) -> None:
    """Manifests: each of many small commits brought one more."""
    rows = _rows(
        """
        SELECT i AS event_id, ['auth', 'billing', 'search'][i % 3 + 1] AS service, 'user-' || (r(i, 71) % 500) AS actor,
               ['read', 'write', 'grant'][r(i, 72) % 3 + 1] AS action
        FROM range(36000) t(i)
        """
    )
    table = _create(catalog, "ops.audit.events", rows, partition_by="service")
    for start in range(0, 36_000, 450):
        table.append(rows.slice(start, 450))


def scratch(catalog: SqlCatalog) -> None:
    """Small files as well, but no policy governs it."""
    rows = _rows("SELECT i AS id, md5(CAST(i AS VARCHAR)) AS note FROM range(5000) t(i)")
    _write_files(_create(catalog, "scratch.tmp", rows), rows, arrow_bytes_per_file=20_000)


MAKERS: tuple[Callable[[SqlCatalog], None], ...] = (
    clicks,
    sessions,
    pages,
    orders,
    returns,
    customers,
    broken,
    audit_events,
    scratch,
)


def _rows(query: str) -> pa.Table:
    """The query's result; ``r(i, n)`` is the n-th pseudo-random number of row i, equal in every build."""
    with duckdb.connect() as connection:
        connection.execute("CREATE MACRO r(i, n) AS CAST(('0x' || md5(i || '/' || n)[:7]) AS BIGINT)")
        return connection.sql(query).to_arrow_table()


def _create(
    catalog: SqlCatalog,
    name: str,
    rows: pa.Table,
    partition_by: str | None = None,
    properties: dict[str, str] | None = None,
) -> Table:
    table = catalog.create_table(name, schema=rows.schema, properties=properties or {})
    if partition_by:
        with table.update_spec() as spec:
            spec.add_identity(partition_by)
    return table


def _write_files(table: Table, rows: pa.Table, arrow_bytes_per_file: int) -> None:
    """Append in one commit, as files of about that many bytes of Arrow data, which pyiceberg goes by."""
    _set(table, {TARGET_FILE_SIZE: str(arrow_bytes_per_file)})
    table.append(rows)
    with table.transaction() as transaction:
        transaction.remove_properties(TARGET_FILE_SIZE)


def _set(table: Table, properties: dict[str, str]) -> None:
    with table.transaction() as transaction:
        transaction.set_properties(properties)
