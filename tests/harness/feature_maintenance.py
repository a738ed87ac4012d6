"""The five operations of the embedded engine, one after the other, on a table of the feature matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from harness import version_3
from harness.feature_checks import Manifests, check_statistics
from harness.feature_tables import Combination, Warehouse, expected_rows
from harness.oracle import Digest, oracle_digest, parquet_digest
from harness.tables import context_for, delete_files, request_for
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import ManifestContent
from pyiceberg.table import Table

from airflow_provider_floe.engines.base import OperationResult
from airflow_provider_floe.engines.local.engine import LocalEngine
from airflow_provider_floe.iceberg.delete_selection import position_delete_work
from airflow_provider_floe.iceberg.manifests import live_files, snapshot_manifests
from airflow_provider_floe.iceberg.retention import expire_work
from airflow_provider_floe.iceberg.selection import manifest_work, rewrite_work
from airflow_provider_floe.policies.model import (
    ExpireSnapshots,
    OperationSettings,
    OrphanCleanup,
    RewriteDataFiles,
    RewriteManifests,
    RewritePositionDeleteFiles,
)
from airflow_provider_floe.tables import Operation

ENGINE = LocalEngine(256 * 1024**2)
DELETES = RewritePositionDeleteFiles(min_input_files=2)
DATA = RewriteDataFiles(remove_dangling_deletes=True)
MANIFESTS = RewriteManifests()
EXPIRY = ExpireSnapshots(retain_last=1, max_snapshot_age=timedelta(hours=1), clean_expired_metadata=True)
STEPS: Mapping[Operation, OperationSettings] = {
    Operation.REWRITE_POSITION_DELETE_FILES: DELETES,
    Operation.REWRITE_DATA_FILES: DATA,
    Operation.REWRITE_MANIFESTS: MANIFESTS,
    Operation.EXPIRE_SNAPSHOTS: EXPIRY,
    Operation.REMOVE_ORPHAN_FILES: OrphanCleanup(),
}


def maintain(table: Table, combination: Combination, warehouse: Warehouse, folder: Path) -> None:
    """Run every operation, twice, and hold what each must leave alone.

    :param folder: for files of the check itself.
    """
    told = expected_digest(table, combination, folder)
    before = {"main": told, **digests(table, kept_snapshots(table), combination, warehouse)}
    assert before["main"] == told
    lineage = lineage_of(table, combination)
    manifests = Manifests()
    checked = table.metadata.current_snapshot_id

    def hold(operation: Operation) -> None:
        nonlocal checked
        found = digests(table, kept_snapshots(table), combination, warehouse)
        assert found.items() <= before.items(), operation
        assert manifests.missing_files(table) == [], operation
        if checked != table.metadata.current_snapshot_id:
            check_statistics(table)
            checked = table.metadata.current_snapshot_id

    run_every_operation(table, hold)
    assert lineage_of(table, combination) == lineage
    assert digests(table, kept_snapshots(table), combination, warehouse)["main"] == told

    assert [work for work in planned(table, context_for(table).now()) if work.found] == []
    for operation, settings in STEPS.items():
        assert not run(table, operation, settings).changed, operation


def run_every_operation(table: Table, after_each: Callable[[Operation], None] = lambda _: None) -> None:
    """Run every operation once, and hold by the table's metadata what goes and what stays."""
    kept = kept_snapshots(table)
    stray = f"{table.location()}/data/stray.parquet"
    with table.io.new_output(stray).create() as stream:
        stream.write(b"of a writer that died")
    for operation, settings in STEPS.items():
        result = run(table, operation, settings)
        assert result.changed or operation is Operation.REWRITE_POSITION_DELETE_FILES, operation
        after_each(operation)
    assert not table.io.new_input(stray).exists()
    assert {**kept_snapshots(table), "main": kept["main"]} == kept
    assert {snapshot.snapshot_id for snapshot in table.metadata.snapshots} == set(kept_snapshots(table).values())
    assert delete_files(table) == []


def run(table: Table, operation: Operation, settings: OperationSettings) -> OperationResult:
    """An operation; the context's time is years after the files were written. The table is refreshed."""
    result = ENGINE.execute(request_for(table, operation, settings), context_for(table))
    table.refresh()
    return result


def planned(table: Table, now: datetime) -> Iterator[Any]:
    """What planning says of each operation, without any history."""
    files = list(live_files(table.io, snapshot_manifests(table)))
    yield position_delete_work(table.metadata, files, DELETES)
    yield rewrite_work(table, DATA, files)
    yield manifest_work(table, MANIFESTS)
    yield expire_work(table, EXPIRY, now)


def kept_snapshots(table: Table) -> dict[str, int]:
    """Heads of branches and tags, and a staged snapshot."""
    found = {name: ref.snapshot_id for name, ref in table.refs().items()}
    for snapshot in table.metadata.snapshots:
        if snapshot.summary and snapshot.summary["wap.id"]:
            found["staged"] = snapshot.snapshot_id
    return found


def digests(
    table: Table, snapshots: Mapping[str, int], combination: Combination, warehouse: Warehouse
) -> dict[str, Digest]:
    """What DuckDB reads of snapshots; 1.5.5 breaks down over equality deletes by columns that were dropped since."""
    may_compare = "equality" in combination["deletes"] and combination["schema"] == "dropped+added"
    return {
        name: oracle_digest(table.metadata_location, snapshot, s3=warehouse.s3)
        for name, snapshot in snapshots.items()
        if not (may_compare and _compares_dropped_columns(table, snapshot))
    }


def _compares_dropped_columns(table: Table, snapshot_id: int) -> bool:
    compared = {
        number
        for manifest in snapshot_manifests(table, snapshot_id)
        if manifest.content == ManifestContent.DELETES
        for entry in manifest.fetch_manifest_entry(table.io)
        for number in entry.data_file.equality_ids or ()
    }
    return not compared <= table.schema().field_ids


def expected_digest(table: Table, combination: Combination, folder: Path) -> Digest:
    """What DuckDB would read of the rows that were made, deletes applied."""
    schema = table.schema()
    path = folder / "expected.parquet"
    rows = expected_rows(combination, schema)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema_to_pyarrow(schema, include_field_ids=False)), path)
    return parquet_digest(str(path))


def lineage_of(table: Table, combination: Combination) -> list[tuple[Any, ...]] | None:
    """Ids of rows and their last changes, of tables without equality deletes nor rows from before an upgrade."""
    if combination["version"] != "v3" or combination["deletes"] not in ("no-deletes", "vectors"):
        return None
    place = [field.name for field in table.schema().fields].index("id")
    return [(row.values[place], row.row_id, row.last_updated) for row in version_3.rows(table)]
