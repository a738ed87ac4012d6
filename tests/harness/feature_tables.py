"""A table for each combination of what an Iceberg table may have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from io import BytesIO
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
from pyiceberg.transforms import BucketTransform, DayTransform, IdentityTransform, MonthTransform, TruncateTransform
from pyiceberg.typedef import Record
from pyiceberg.types import DateType, IntegerType, LongType, NestedField, StringType, StructType, TimestampType

DIMENSIONS: Mapping[str, Sequence[str]] = {
    "version": ("v1", "v2", "v3"),
    "partitioning": ("unpartitioned", "identity", "bucket", "truncate", "month-day", "evolved-spec"),
    "deletes": (
        "no-deletes",
        "position",
        "position-by-file",
        "equality",
        "equality-of-nulls",
        "position+equality",
        "vectors",
        "vectors+equality",
    ),
    "schema": (
        "same-schema",
        "added",
        "default",
        "renamed",
        "dropped+added",
        "promoted",
        "nested-added",
        "reordered",
        "no-field-ids",
    ),
    "refs": ("main", "branch", "tag", "sharing-branch", "staged"),
}
"""What a table may have.

``position``: a delete file for all data files of a partition. ``equality``: by key, in each partition; of an evolved
spec also global. ``equality-of-nulls``: by a column with NULLs, first as it is before the change of schema (so that
``dropped+added`` drops a column that deletes compare), then after. ``sharing-branch``: it has most data files and
all deletes of the main branch. ``staged``: a snapshot to be published later (WAP).
"""
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
    "truncate": PartitionSpec(PartitionField(1, 1000, TruncateTransform(10), "tens")),
    "month-day": PartitionSpec(
        PartitionField(3, 1000, MonthTransform(), "on_month"), PartitionField(4, 1001, DayTransform(), "at_day")
    ),
    "evolved-spec": PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "part")),
}
DELETED: Mapping[str, tuple[int, ...]] = {
    "position": (1, 8, 14, 20),
    "position-by-file": (1, 8, 14, 20),
    "vectors": (1, 8, 14, 20),
    "equality": (2, 7, 13, 19),
    "equality-of-nulls": (2, 4, 13, 15),
}
"""Ids of rows that deletes of each kind remove, half from before and half from after the change of the schema.

Those of NULLs: one by its text, and the one without a text among the rows that were there.
"""
_DEFAULT = "as it began"


Combination = Mapping[str, str]
"""A value of each dimension."""


class Warehouse(NamedTuple):
    """Where a table of the matrix lives.

    :ivar s3: facts of the store; None on disk.
    """

    catalog: Catalog
    s3: Facts | None


def possible(combination: Combination) -> bool:
    """Version 1 has no deletes; deletion vectors and default values came with version 3.

    Position delete files of version 3 are those from before its upgrade.
    """
    version, deletes = combination["version"], combination["deletes"]
    if version != "v3" and ("vectors" in deletes or combination["schema"] == "default"):
        return False
    return version != "v1" or deletes == "no-deletes"


def deleted(combination: Combination) -> set[int]:
    """Ids of the rows that are not there any more."""
    deletes = combination["deletes"]
    gone = {
        one for kind in (deletes.split("+") if deletes in DELETED or "+" in deletes else ()) for one in DELETED[kind]
    }
    # the column that takes the place of the dropped one holds no NULL
    return gone - {15} if combination["schema"] == "dropped+added" and deletes == "equality-of-nulls" else gone


def expected_rows(combination: Combination, schema: Schema) -> list[dict[str, Any]]:
    """The rows of the main branch by the table's current schema, as they were made, in the order of their ids."""
    null_part = has_null_part(combination)
    before, after = row_of(SCHEMA, null_part), row_of(schema, null_part)
    names = {field.field_id: field.name for field in SCHEMA.fields}
    found = []
    for one in sorted(set(range(30)) - deleted(combination)):
        row = after(one)
        if one < (24 if changes_late(combination) else 12):
            old = before(one)
            row = {
                field.name: old[names[field.field_id]] if field.field_id in names else field.initial_default
                for field in schema.fields
            }
            if row["pair"] is not None and combination["schema"] == "nested-added":
                row["pair"] = {**row["pair"], "right": None}
        found.append(row)
    return found


def expected_ids(combination: Combination) -> dict[str, list[int]]:
    """Ids of the rows that each snapshot holds which is to stay, by what it is called."""
    left = sorted(set(range(30)) - deleted(combination))
    first = list(range(12))
    others = {
        "main": {},
        "branch": {"dev": [*first, *range(100, 106)]},
        "tag": {"audit": first},
        "sharing-branch": {"sharing": [one for one in left if one < 24]},
        "staged": {"staged": [*first, *range(200, 206)]},
    }
    return {"main": left, **others[combination["refs"]]}


def changes_late(combination: Combination) -> bool:
    """Whether the schema changes after the deletes: in default values, which need the upgrade that came after those."""
    return combination["schema"] == "default" and "position" in combination["deletes"]


def has_null_part(combination: Combination) -> bool:
    """Whether the partition column holds NULLs.

    DuckDB 1.5.5 breaks down where equality deletes meet a partition value that is NULL, or a field of another spec.
    """
    return "equality" not in combination["deletes"]


def build(catalog: Catalog, combination: Combination, name: str = f"{NAMESPACE}.events") -> Table:
    """A table of several small files in each partition, half of them from before its schema and spec changed."""
    version, deletes = combination["version"], combination["deletes"]
    upgraded = version == "v3" and "position" in deletes
    null_part = has_null_part(combination)
    evolved = combination["partitioning"] == "evolved-spec"
    spec = PartitionSpec() if evolved and not null_part else _SPECS[combination["partitioning"]]
    field_ids = combination["schema"] != "no-field-ids"
    properties = {"format-version": "1" if version == "v1" else "2", "write.delete.granularity": "file", **FAST_RETRIES}
    if not field_ids:
        properties["schema.name-mapping.default"] = SCHEMA.name_mapping.model_dump_json()
    table = catalog.create_table(
        name,
        schema=SCHEMA,
        partition_spec=spec,
        properties=properties,
    )
    if version == "v3" and not upgraded:
        upgrade(table)
    add = partial(append, table, null_part=null_part)
    add(range(6), field_ids=field_ids)
    add(range(6, 12), field_ids=field_ids)
    if combination["refs"] == "tag":
        table.manage_snapshots().create_tag(_head(table), "audit").commit()
    if combination["refs"] == "branch":
        table.manage_snapshots().create_branch(_head(table), "dev").commit()
        add(range(100, 106), field_ids=field_ids, branch="dev")
    if combination["refs"] == "staged":
        add(range(200, 206), field_ids=field_ids, branch=None)
    if deletes == "equality-of-nulls":
        _delete_by_equality(table, "text", [text_of(2), None])
    if not changes_late(combination):
        _change_schema(table, combination["schema"])
    if evolved:
        with table.update_spec() as update:
            if not spec.is_unpartitioned():
                update.remove_field("part")
            update.add_field("id", BucketTransform(2), "bucketed")
    add(range(12, 18))
    add(range(18, 24))
    _delete(table, deletes)
    if deletes == "equality-of-nulls":
        replaced = combination["schema"] == "dropped+added"
        column = "renamed" if combination["schema"] == "renamed" else "text"
        _delete_by_equality(table, column, ["new 13"] if replaced else [text_of(13), None])
    if combination["refs"] == "sharing-branch":
        table.manage_snapshots().create_branch(_head(table), "sharing").commit()
    if upgraded:
        upgrade(table)
    if changes_late(combination):
        _change_schema(table, combination["schema"])
    add(range(24, 30))
    return table


def append(
    table: Table, ids: Iterable[int], *, null_part: bool, field_ids: bool = True, branch: str | None = "main"
) -> None:
    """Append a file in each partition; the table is refreshed.

    :param null_part: whether some rows have no value in the column by which tables are partitioned.
    :param branch: None stages the snapshot, for a branch to take it up later.
    """
    groups: defaultdict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in map(row_of(table.schema(), null_part), ids):
        groups[partition_of(table.spec(), table.schema(), row)].append(row)
    files = [_write(table, rows, partition, field_ids) for partition, rows in groups.items()]
    if table.metadata.format_version == 3:
        commit_version_3(table, added=files, operation=Operation.APPEND, branch=branch)
        return
    properties = {} if branch else {"wap.id": "staged by the tests"}
    with (
        table.transaction() as transaction,
        transaction.update_snapshot(properties, branch=branch).fast_append() as update,
    ):
        for file in files:
            update.append_data_file(file)
    table.refresh()


def row_of(schema: Schema, null_part: bool) -> Callable[[int], dict[str, Any]]:
    """Makes the row with an id, with a value for each column of the schema."""

    inner = [field.name for field in schema.find_type(7).fields]

    def make(one: int) -> dict[str, Any]:
        on = date(2026, 1 + one % 2, 15)
        pair = {name: {"left": one, "right": f"right {one}"}[name] for name in inner} if one % 5 else None
        promoted = schema.find_type(5) == LongType()
        values = {
            1: one,
            2: (None if null_part else "", "a", "b c/d")[one % 3],
            3: on,
            4: datetime(on.year, on.month, on.day, 23, 59, 59, one),
            5: None if one % 7 == 0 else one + (2**40 if promoted else 0),
            6: text_of(one),
            7: pair,
        }
        return {field.name: values.get(field.field_id, f"new {one}") for field in schema.fields}

    return make


def text_of(one: int) -> str | None:
    """Longer than the bounds of strings that manifests hold, where it is not NULL."""
    return None if one % 11 == 4 else f"text {one:03} of more than 16"


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
    written = BytesIO()
    content = pa.Table.from_pylist(rows, schema=schema_to_pyarrow(schema, include_field_ids=field_ids))
    pq.write_table(content, written)
    with table.io.new_output(path).create() as stream:
        stream.write(written.getvalue())
    statistics = data_file_statistics_from_parquet_metadata(
        pq.read_metadata(written),
        compute_statistics_plan(schema, table.properties),
        parquet_path_to_id_mapping(schema),
    )
    file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=Record(*partition),
        file_size_in_bytes=len(written.getvalue()),
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
        elif how == "default":
            update.add_column("added", StringType(), default_value=_DEFAULT)
        elif how == "reordered":
            update.move_first("text")
            update.move_after("on", "pair")
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
            doomed = positions_of(table, DELETED["position"][half])
            position_delete(table, doomed, file_scoped=how == "position-by-file")
        if how in ("equality", "position+equality", "vectors+equality"):
            _delete_by_equality(table, "id", DELETED["equality"][half])
        if "vectors" in how:
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


def _delete_by_equality(table: Table, column: str, values: Sequence[Any]) -> None:
    """As a writer that does not know where rows are: in each partition of each spec."""
    kind = schema_to_pyarrow(table.schema().find_type(column))
    keys = pa.table({column: pa.array(values, kind)})
    partitions = {(file.spec_id, tuple(file.partition)) for file in data_files(table)}
    files = [
        prepare_equality_delete(table, keys, [column], partition=partition, spec_id=spec_id)
        for spec_id, partition in sorted(partitions, key=repr)
    ]
    if table.metadata.format_version == 3:
        commit_version_3(table, added=files)
    else:
        commit_deletes(table, files)
