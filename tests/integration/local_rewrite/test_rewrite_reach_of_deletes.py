"""How far deletes reach where partitions, specs or snapshots are unusual: no deleted row may come back."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
from harness.merge_on_read import equality_delete, position_delete
from harness.tables import (
    FAST_RETRIES,
    append_files,
    context_for,
    data_files,
    delete_files,
    lake,
    request_for,
    rows,
    small_files,
)
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.update import AddPartitionSpecUpdate, SetDefaultSpecUpdate
from pyiceberg.transforms import IdentityTransform, VoidTransform
from pyiceberg.typedef import Record
from pyiceberg.types import DoubleType, LongType, NestedField
from rewriting import ids, rewrite, work

from airflow_provider_floe.engines.local import expire
from airflow_provider_floe.engines.local.pyiceberg_adapter import ParquetLayout, data_file
from airflow_provider_floe.policies.model import ExpireSnapshots
from airflow_provider_floe.tables import Operation


def test_deletes_reach_a_partition_whose_value_is_no_number(tmp_path: Path) -> None:
    schema = Schema(
        NestedField(1, "id", LongType(), required=False), NestedField(2, "number", DoubleType(), required=False)
    )
    spec = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "number"))
    properties = {"format-version": "2", **FAST_RETRIES}
    table = lake(tmp_path).create_table("db.numbers", schema=schema, partition_spec=spec, properties=properties)
    layout = ParquetLayout(table.metadata)
    for first in (0, 10, 20):
        path = f"{table.location()}/data/number=NaN/{first}.parquet"
        with table.io.new_output(path).create() as stream, layout.open(stream) as writer:
            values = pa.table({"id": list(range(first, first + 10)), "number": [math.nan] * 10}, schema=layout.arrow)
            writer.write_table(values)
        size = len(table.io.new_input(path))
        file = data_file(path, Record(math.nan), 0, size, None, **layout.metrics(writer.writer.metadata))
        with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
            append.append_data_file(file)
    table.refresh()
    position_delete(table, {file.file_path: [1] for file in data_files(table)}, bounds=False)
    equality_delete(table, values.slice(9, 1), ["id"], partition=[math.nan])
    rewrite(table)
    assert delete_files(table) == []
    assert ids(table) == [one for one in range(30) if one not in (1, 11, 21, 29)]
    assert len(data_files(table)) == 1
    assert not work(table).found


def test_an_equality_delete_under_a_spec_with_only_void_fields_is_global(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 2, parts=("a", "b"))
    with table.transaction() as transaction:
        void = PartitionSpec(PartitionField(2, 1000, VoidTransform(), "part"), spec_id=1)
        transaction._apply((AddPartitionSpecUpdate(spec=void), SetDefaultSpecUpdate(spec_id=-1)))
    table.refresh()
    assert table.spec().spec_id == 1
    equality_delete(table, rows(5, 1), ["id"], partition=[None], spec_id=1)
    rewrite(table)
    assert delete_files(table) == []
    assert ids(table) == [one for one in range(40) if one != 5]


def test_deletes_reach_the_files_of_a_snapshot_that_was_given_back(tmp_path: Path) -> None:
    """A snapshot expired and given back has a new sequence number; its files are as old as before."""
    table = small_files(lake(tmp_path), 3)
    first = table.metadata.snapshots[0].snapshot_id
    position_delete(table, {file.file_path: [1] for file in data_files(table)}, bounds=False)
    left = ids(table)

    def tag(attempt: int) -> None:
        if attempt == 1:
            table.catalog.load_table(table.name()).manage_snapshots().create_tag(first, "audit").commit()

    settings = ExpireSnapshots(retain_last=1, max_snapshot_age=timedelta(hours=1))
    request = request_for(table, Operation.EXPIRE_SNAPSHOTS, settings)
    expire.run(request, context_for(table, on_committing=tag), 0)
    table.refresh()
    assert table.refs()["audit"].snapshot_id == first
    append_files(table, 1, start=100)
    rewrite(table)
    assert ids(table) == [*left, *range(100, 110)]
