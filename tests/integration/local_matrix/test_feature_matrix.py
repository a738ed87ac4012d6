"""The five operations of the embedded engine, one after the other, on tables of every pair of features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow.parquet as pq
from feature_tables import DELETED, Warehouse, build, partition_of, stored
from harness import version_3
from harness.oracle import Digest, oracle_digest
from harness.tables import context_for, data_files, delete_files, referenced_files, request_for
from pyiceberg.conversions import to_bytes
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import DateType, IntegerType, LongType, PrimitiveType, StringType, TimestampType

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


def test_maintenance_of(warehouse: Warehouse, combination: Mapping[str, str]) -> None:
    table = build(warehouse.catalog, combination)
    before, lineage = rows_of_refs(table, warehouse), lineage_of(table, combination)
    assert before["main"].rows == 30 - len(deleted(combination))
    stray = f"{table.location()}/data/stray.parquet"
    with table.io.new_output(stray).create() as stream:
        stream.write(b"of a writer that died")

    for operation, settings in STEPS.items():
        result = run(table, operation, settings)
        assert result.changed or operation is Operation.REWRITE_POSITION_DELETE_FILES, operation
        assert rows_of_refs(table, warehouse) == before, operation
        assert [path for path in referenced_files(table) if not table.io.new_input(path).exists()] == [], operation
        check_statistics(table)
    assert lineage_of(table, combination) == lineage
    assert not table.io.new_input(stray).exists()
    assert len(table.metadata.snapshots) == len(before)
    assert delete_files(table) == []

    assert [work for work in planned(table, context_for(table).now()) if work.found] == []
    for operation, settings in STEPS.items():
        assert not run(table, operation, settings).changed, operation


def deleted(combination: Mapping[str, str]) -> list[int]:
    kinds = {"no-deletes": "", "vectors": "position"}.get(combination["deletes"], combination["deletes"])
    return [one for kind in kinds.split("+") if kind for one in DELETED[kind]]


def run(table: Table, operation: Operation, settings: OperationSettings) -> OperationResult:
    """An operation; the context's time is years after the files were written. The table is refreshed."""
    result = ENGINE.execute(request_for(table, operation, settings), context_for(table))
    table.refresh()
    return result


def planned(table: Table, now: datetime) -> Iterator[Any]:
    files = list(live_files(table.io, snapshot_manifests(table)))
    yield position_delete_work(table.metadata, files, DELETES)
    yield rewrite_work(table, DATA, files)
    yield manifest_work(table, MANIFESTS)
    yield expire_work(table, EXPIRY, now)


def rows_of_refs(table: Table, warehouse: Warehouse) -> dict[str, Digest]:
    """What DuckDB reads of each branch and tag."""
    return {
        name: oracle_digest(table.metadata_location, ref.snapshot_id, s3=warehouse.s3)
        for name, ref in table.refs().items()
    }


def lineage_of(table: Table, combination: Mapping[str, str]) -> list[tuple[Any, ...]] | None:
    """Ids of rows and their last changes, of tables without equality deletes nor rows from before an upgrade."""
    if combination["version"] != "v3" or combination["deletes"] not in ("no-deletes", "vectors"):
        return None
    return [(row.values[0], row.row_id, row.last_updated) for row in version_3.rows(table)]


def current(table: Table) -> Any:
    snapshot = table.current_snapshot()
    assert snapshot is not None
    return snapshot


def check_statistics(table: Table) -> None:
    """Counts, bounds, sizes and partitions in the manifests are those of the files."""
    files = data_files(table)
    summary = current(table).summary
    if summary["total-data-files"] is not None:  # what the tests themselves commit of version 3 counts nothing
        assert summary["total-data-files"] == str(len(files))
        assert summary["total-records"] == str(sum(file.record_count for file in files))
    for file in files:
        check_file(table, file)


def check_file(table: Table, file: DataFile) -> None:
    source = table.io.new_input(file.file_path)
    assert file.file_size_in_bytes == len(source)
    with source.open() as stream:
        parquet = pq.ParquetFile(stream)
        rows = parquet.read().to_pylist()
        ids = field_ids(parquet, table.metadata.schemas[0])
    assert file.record_count == len(rows)
    for field_id, path in ids.items():
        values = [value_at(row, path) for row in rows]
        present = [value for value in values if value is not None]
        assert file.value_counts[field_id] == len(values), path
        assert file.null_value_counts[field_id] == len(values) - len(present), path
        if len(path) > 1 and field_id not in file.lower_bounds:
            continue  # pyiceberg's writer leaves out those of nested fields, which the specification allows
        if present:
            kind = kind_of(present, parquet, path)
            assert file.lower_bounds[field_id] == to_bytes(kind, stored(min(present))), path
            assert file.upper_bounds[field_id] == to_bytes(kind, stored(max(present))), path
        else:
            assert field_id not in file.lower_bounds, path
    named = {number: path for number, path in ids.items() if len(path) == 1}
    spec, schema = table.specs()[file.spec_id], table.schema()
    for row in rows:
        values_by_name = {schema.find_column_name(number): row[path[0]] for number, path in named.items()}
        assert partition_of(spec, schema, values_by_name) == tuple(file.partition)


def field_ids(parquet: pq.ParquetFile, oldest: Schema) -> dict[int, tuple[str, ...]]:
    """Paths of the columns with values by field id; those of files without ids are of the oldest schema."""
    found: dict[int, tuple[str, ...]] = {}

    def add(fields: Any, above: tuple[str, ...]) -> None:
        for field in fields:
            path = (*above, field.name)
            if field.type.num_fields:
                add(field.type, path)
                continue
            told = (field.metadata or {}).get(b"PARQUET:field_id")
            found[int(told) if told else oldest.find_field(".".join(path)).field_id] = path

    add(parquet.schema_arrow, ())
    return {field_id: path for field_id, path in found.items() if not path[0].startswith("_")}


def value_at(row: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = row
    for name in path:
        value = None if value is None else value[name]
    return value


def kind_of(values: list[Any], parquet: pq.ParquetFile, path: tuple[str, ...]) -> PrimitiveType:
    """The Iceberg type that a column has in the file."""
    if isinstance(values[0], datetime):
        return TimestampType()
    if isinstance(values[0], date):
        return DateType()
    if isinstance(values[0], str):
        return StringType()
    narrow = len(path) == 1 and str(parquet.schema_arrow.field(path[0]).type) == "int32"
    return IntegerType() if narrow else LongType()
