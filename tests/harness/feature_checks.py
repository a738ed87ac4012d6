"""Holds what manifests say of files against the files themselves, as pyarrow reads them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from itertools import chain
from typing import Any

import pyarrow.parquet as pq
from harness import version_3
from harness.feature_tables import partition_of, stored
from harness.tables import data_files
from pyiceberg.conversions import to_bytes
from pyiceberg.manifest import DataFile, ManifestFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.types import DateType, IntegerType, LongType, PrimitiveType, StringType, TimestampType

_BOUND = 16
"""Characters of a string that a bound holds, by the default metrics mode."""


class Manifests:
    """Reads each manifest and manifest list of a table once, since they never change, however often it is asked."""

    def __init__(self) -> None:
        self._lists: dict[str, list[ManifestFile]] = {}
        self._files: dict[str, list[str]] = {}

    def missing_files(self, table: Table) -> list[str]:
        """What any snapshot of the table names but storage does not have."""
        return sorted(path for path in self._referenced(table) if not table.io.new_input(path).exists())

    def _referenced(self, table: Table) -> set[str]:
        named = {snapshot.manifest_list for snapshot in table.metadata.snapshots}
        for manifest in chain.from_iterable(self._of(table, snapshot) for snapshot in table.metadata.snapshots):
            path = manifest.manifest_path
            if path not in self._files:
                self._files[path] = [entry.data_file.file_path for entry in manifest.fetch_manifest_entry(table.io)]
            named.update((path, *self._files[path]))
        return named

    def _of(self, table: Table, snapshot: Snapshot) -> list[ManifestFile]:
        if snapshot.manifest_list not in self._lists:
            self._lists[snapshot.manifest_list] = snapshot.manifests(table.io)
        return self._lists[snapshot.manifest_list]


def check_statistics(table: Table) -> None:
    """Counts, bounds, sizes and partitions in the manifests are those of the files, and the summary adds up."""
    files = data_files(table)
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    if snapshot.summary["total-data-files"] is not None:  # what tests themselves commit of version 3 counts nothing
        assert snapshot.summary["total-data-files"] == str(len(files))
        assert snapshot.summary["total-records"] == str(sum(file.record_count for file in files))
    for file in files:
        _check_file(table, file)
    for delete in version_3.live(table):
        if delete.content:
            _check_delete_file(table, delete)


def _check_file(table: Table, file: DataFile) -> None:
    source = table.io.new_input(file.file_path)
    assert file.file_size_in_bytes == len(source)
    with source.open() as stream:
        parquet = pq.ParquetFile(stream)
        rows = parquet.read().to_pylist()
        ids = _field_ids(parquet, table.metadata.schemas[0])
        groups = [parquet.metadata.row_group(number) for number in range(parquet.num_row_groups)]
    assert file.record_count == len(rows)
    assert file.split_offsets == [_begin(group) for group in groups]
    sizes = [group.column(place) for group in groups for place in range(group.num_columns)]
    for field_id, path in ids.items():
        values = [_value_at(row, path) for row in rows]
        present = [value for value in values if value is not None]
        mine = [column.total_compressed_size for column in sizes if column.path_in_schema == ".".join(path)]
        assert file.column_sizes[field_id] == sum(mine), path
        assert file.value_counts[field_id] == len(values), path
        assert file.null_value_counts[field_id] == len(values) - len(present), path
        if len(path) > 1 and field_id not in file.lower_bounds:
            continue  # pyiceberg's writer leaves out those of nested fields, which the specification allows
        if present:
            kind = _kind_of(present, parquet, path)
            assert file.lower_bounds[field_id] == to_bytes(kind, _lower(min(present))), path
            assert file.upper_bounds[field_id] == to_bytes(kind, _upper(max(present))), path
        else:
            assert field_id not in file.lower_bounds, path
    named = {number: path for number, path in ids.items() if len(path) == 1}
    spec, schema = table.specs()[file.spec_id], table.schema()
    for row in rows:
        values_by_name = {schema.find_column_name(number): row[path[0]] for number, path in named.items()}
        assert partition_of(spec, schema, values_by_name) == tuple(file.partition)


def _check_delete_file(table: Table, delete: version_3.Live) -> None:
    if delete.file_format == "puffin":
        assert delete.records == len(version_3.vector_of(table, delete))
        return
    with table.io.new_input(delete.path).open() as stream:
        assert delete.records == pq.ParquetFile(stream).metadata.num_rows


def _begin(group: Any) -> int:
    first = group.column(0)
    return first.dictionary_page_offset or first.data_page_offset  # type: ignore[no-any-return]


def _lower(value: Any) -> Any:
    return value[:_BOUND] if isinstance(value, str) else stored(value)


def _upper(value: Any) -> Any:
    """A string that is cut short is made greater than any that begins so."""
    if isinstance(value, str) and len(value) > _BOUND:
        return value[: _BOUND - 1] + chr(ord(value[_BOUND - 1]) + 1)
    return stored(value)


def _field_ids(parquet: pq.ParquetFile, oldest: Schema) -> dict[int, tuple[str, ...]]:
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


def _value_at(row: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = row
    for name in path:
        value = None if value is None else value[name]
    return value


def _kind_of(values: list[Any], parquet: pq.ParquetFile, path: tuple[str, ...]) -> PrimitiveType:
    """The Iceberg type that a column has in the file."""
    if isinstance(values[0], datetime):
        return TimestampType()
    if isinstance(values[0], date):
        return DateType()
    if isinstance(values[0], str):
        return StringType()
    narrow = len(path) == 1 and str(parquet.schema_arrow.field(path[0]).type) == "int32"
    return IntegerType() if narrow else LongType()
