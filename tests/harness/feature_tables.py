"""A table for each combination of what an Iceberg table may have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from harness.merge_on_read import commit_deletes, position_delete, prepare_equality_delete
from harness.services.base import Facts
from harness.tables import FAST_RETRIES, NAMESPACE, data_files
from harness.version_3 import add_vectors, upgrade
from harness.version_3 import commit as commit_version_3
from pyiceberg.catalog import Catalog
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    schema_to_pyarrow,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.transforms import BucketTransform, DayTransform, IdentityTransform, MonthTransform
from pyiceberg.typedef import Record
from pyiceberg.types import DateType, IntegerType, LongType, NestedField, StringType, StructType, TimestampType

DIMENSIONS: Mapping[str, Sequence[str]] = {
    "version": ("v1", "v2", "v3"),
    "partitioning": ("unpartitioned", "identity", "bucket", "month-day", "evolved-spec"),
    "deletes": ("no-deletes", "position", "equality", "position+equality", "vectors"),
    "schema": ("same-schema", "added", "renamed", "dropped+added", "promoted", "nested-added", "no-field-ids"),
    "refs": ("main", "branch", "tag", "sharing-branch"),
}
SCHEMA = Schema(
    NestedField(1, "id", LongType(), required=False),
    NestedField(2, "part", StringType(), required=False),
    NestedField(3, "on", DateType(), required=False),
    NestedField(4, "at", TimestampType(), required=False),
    NestedField(5, "number", IntegerType(), required=False),
    NestedField(6, "text", StringType(), required=False),
    NestedField(7, "pair", StructType(NestedField(8, "left", LongType(), required=False)), required=False),
)
_SPECS = {
    "unpartitioned": PartitionSpec(),
    "identity": PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "part")),
    "bucket": PartitionSpec(PartitionField(1, 1000, BucketTransform(3), "bucketed")),
    "month-day": PartitionSpec(
        PartitionField(3, 1000, MonthTransform(), "on_month"), PartitionField(4, 1001, DayTransform(), "at_day")
    ),
    "evolved-spec": PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "part")),
}
DELETED = {"position": (1, 8, 14, 20), "equality": (2, 7, 13, 19)}
"""Ids of rows that deletes of each kind remove, of files from before and after the changes of schema and spec."""


class Warehouse(NamedTuple):
    """Where a table of the matrix lives.

    :ivar s3: facts of the store; None on disk.
    """

    catalog: Catalog
    s3: Facts | None


def possible(combination: Mapping[str, str]) -> bool:
    """Version 1 has no deletes; deletion vectors came with version 3.

    Position delete files of version 3 are those from before its upgrade.
    """
    deletes = combination["deletes"]
    if combination["version"] == "v1":
        return deletes == "no-deletes"
    return deletes != "vectors" or combination["version"] == "v3"


def build(catalog: Catalog, combination: Mapping[str, str]) -> Table:
    """A table of several small files in each partition, half of them from before its schema and spec changed."""
    version, deletes = combination["version"], combination["deletes"]
    upgraded = version == "v3" and "position" in deletes
    # DuckDB 1.5.5 breaks down where equality deletes meet a partition value that is NULL, or a field of another spec.
    plain = "equality" in deletes
    evolved = combination["partitioning"] == "evolved-spec"
    spec = PartitionSpec() if evolved and plain else _SPECS[combination["partitioning"]]
    field_ids = combination["schema"] != "no-field-ids"
    properties = {"format-version": "1" if version == "v1" else "2", "write.delete.granularity": "file", **FAST_RETRIES}
    if not field_ids:
        properties["schema.name-mapping.default"] = SCHEMA.name_mapping.model_dump_json()
    table = catalog.create_table(
        f"{NAMESPACE}.events",
        schema=SCHEMA,
        partition_spec=spec,
        properties=properties,
    )
    if version == "v3" and not upgraded:
        upgrade(table)
    add = partial(append, table, null_part=not plain)
    add(range(6), field_ids=field_ids)
    add(range(6, 12), field_ids=field_ids)
    if combination["refs"] == "tag":
        table.manage_snapshots().create_tag(_head(table), "audit").commit()
    if combination["refs"] == "branch":
        table.manage_snapshots().create_branch(_head(table), "dev").commit()
        add(range(100, 106), field_ids=field_ids, branch="dev")
    _change_schema(table, combination["schema"])
    if evolved:
        with table.update_spec() as update:
            if not spec.is_unpartitioned():
                update.remove_field("part")
            update.add_field("id", BucketTransform(2), "bucketed")
    add(range(12, 18))
    add(range(18, 24))
    if combination["refs"] == "sharing-branch":
        table.manage_snapshots().create_branch(_head(table), "sharing").commit()
    _delete(table, deletes)
    if upgraded:
        upgrade(table)
    add(range(24, 30))
    return table


def append(table: Table, ids: Iterable[int], *, null_part: bool, field_ids: bool = True, branch: str = "main") -> None:
    """Append a file in each partition; the table is refreshed.

    :param null_part: whether some rows have no value in the column by which tables are partitioned.
    """
    groups: defaultdict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in map(row_of(table.schema(), null_part), ids):
        groups[partition_of(table.spec(), table.schema(), row)].append(row)
    files = [_write(table, rows, partition, field_ids) for partition, rows in groups.items()]
    if table.metadata.format_version == 3:
        commit_version_3(table, added=files, operation=Operation.APPEND, branch=branch)
        return
    with table.transaction() as transaction, transaction.update_snapshot(branch=branch).fast_append() as update:
        for file in files:
            update.append_data_file(file)
    table.refresh()


def row_of(schema: Schema, null_part: bool) -> Callable[[int], dict[str, Any]]:
    """Makes the row with an id, with a value for each column of the schema."""

    def make(one: int) -> dict[str, Any]:
        on = date(2026, 1 + one % 2, 15)
        pair = {"left": one, "right": f"right {one}"} if one % 5 else None
        promoted = schema.find_type(5) == LongType()
        values = {
            1: one,
            2: (None if null_part else "", "a", "b c/d")[one % 3],
            3: on,
            4: datetime(on.year, on.month, on.day, 23, 59, 59, one),
            5: None if one % 7 == 0 else one + (2**40 if promoted else 0),
            6: f"text {one}",
            7: pair,
        }
        return {field.name: values.get(field.field_id, f"new {one}") for field in schema.fields}

    return make


def partition_of(spec: PartitionSpec, schema: Schema, row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The partition tuple of a row, as manifests have it."""
    found = []
    for field in spec.fields:
        source = schema.find_field(field.source_id)
        found.append(field.transform.transform(source.field_type)(stored(row[source.name])))
    return tuple(found)


def stored(value: Any) -> Any:
    """A value in Iceberg's representation: days and microseconds for dates and timestamps."""
    if isinstance(value, datetime):
        return (value.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return (value - date(1970, 1, 1)).days if isinstance(value, date) else value


def _write(table: Table, rows: list[dict[str, Any]], partition: tuple[Any, ...], field_ids: bool) -> DataFile:
    schema = table.schema()
    path = f"{table.location()}/data/{uuid4()}.parquet"
    output = table.io.new_output(path)
    with output.create() as stream:
        content = pa.Table.from_pylist(rows, schema=schema_to_pyarrow(schema, include_field_ids=field_ids))
        pq.write_table(content, stream)
    with table.io.new_input(path).open() as source:
        statistics = data_file_statistics_from_parquet_metadata(
            pq.read_metadata(source),
            compute_statistics_plan(schema, table.properties),
            parquet_path_to_id_mapping(schema),
        )
    file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=Record(*partition),
        file_size_in_bytes=len(output),
        sort_order_id=None,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )
    file.spec_id = table.spec().spec_id
    return file


def _head(table: Table) -> int:
    assert table.metadata.current_snapshot_id is not None
    return table.metadata.current_snapshot_id


def _change_schema(table: Table, how: str) -> None:
    with table.update_schema(allow_incompatible_changes=True) as update:
        if how == "added":
            update.add_column("added", StringType())
        elif how == "renamed":
            update.rename_column("text", "renamed")
        elif how == "dropped+added":
            update.delete_column("text")
        elif how == "promoted":
            update.update_column("number", LongType())
        elif how == "nested-added":
            update.add_column(("pair", "right"), StringType())
    if how == "dropped+added":
        with table.update_schema() as update:
            update.add_column("text", StringType())


def _delete(table: Table, how: str) -> None:
    """Twice, so that there are delete files to compact and vectors to replace."""
    for half in (slice(0, 2), slice(2, 4)):
        if "position" in how:
            position_delete(table, positions_of(table, DELETED["position"][half]))
        if "equality" in how:
            _delete_by_equality(table, DELETED["equality"][half])
        if how == "vectors":
            add_vectors(table, positions_of(table, DELETED["position"][half]))


def positions_of(table: Table, ids: Sequence[int]) -> dict[str, list[int]]:
    """Positions by data file of the rows with these ids."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for file in data_files(table):
        with table.io.new_input(file.file_path).open() as source:
            values = pq.ParquetFile(source).read(columns=["id"])["id"].to_pylist()
        for position, value in enumerate(values):
            if value in ids:
                found[file.file_path].append(position)
    return dict(found)


def _delete_by_equality(table: Table, ids: Sequence[int]) -> None:
    """As a writer that does not know where rows are: in each partition of each spec."""
    keys = pa.table({"id": pa.array(ids, pa.int64())})
    partitions = {(file.spec_id, tuple(file.partition)) for file in data_files(table)}
    files = [
        prepare_equality_delete(table, keys, ["id"], partition=partition, spec_id=spec_id)
        for spec_id, partition in sorted(partitions, key=repr)
    ]
    if table.metadata.format_version == 3:
        commit_version_3(table, added=files)
    else:
        commit_deletes(table, files)
