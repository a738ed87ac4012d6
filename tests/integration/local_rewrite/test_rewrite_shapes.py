"""What rewritten files look like: sizes, partitions, order, metrics, and rows the same through schema evolution."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness.tables import (
    FAST_RETRIES,
    SCHEMA,
    append_files,
    context_for,
    create_table,
    data_files,
    entries,
    lake,
    local_path,
    missing_files,
    rows,
    rows_digest,
    small_files,
    stored_files,
)
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.sorting import NullOrder, SortDirection, SortField, SortOrder
from pyiceberg.table.update import RemoveSchemasUpdate
from pyiceberg.transforms import BucketTransform, IdentityTransform
from pyiceberg.types import (
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestamptzType,
    TimeType,
    UUIDType,
)
from rewriting import MEMORY, ids, rewrite, rewrite_all_manifests, work

from airflow_provider_floe.engines.local import group_writer, rewrite_data
from airflow_provider_floe.errors import ConfigurationError, UnsupportedSetting, UnsupportedTableFeature
from airflow_provider_floe.iceberg import grouping

TARGET = 200_000
SPILLING = 150_000
"""Bytes of memory into which not even the rows of these tests fit while they are sorted."""


def noise(start: int, count: int) -> pa.Table:
    """Rows whose text hardly compresses: about 50 bytes each on disk."""
    maker = random.Random(start)
    made = rows(start, count)
    text = pa.array([maker.randbytes(24).hex() for _ in range(count)], made.schema.field("text").type)
    return made.set_column(2, made.schema.field("text"), text)


def test_files_come_out_near_the_target_on_disk_and_stay_alone(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path), properties={"write.target-file-size-bytes": str(TARGET)})
    for number in range(12):
        table.append(noise(number * 1500, 1500))
    before = rows_digest(table)
    planned = work(table)
    assert planned.found
    assert planned.files_in == 12
    rewrite(table)
    sizes = [file.file_size_in_bytes for file in data_files(table)]
    assert len(sizes) == planned.files_out
    assert all(0.75 * TARGET <= size <= 1.8 * TARGET for size in sizes), sizes
    assert rows_digest(table) == before
    assert missing_files(table) == []
    assert not work(table).found
    assert not rewrite(table).changed


def test_no_small_rest_is_left_whatever_the_number_of_rows(tmp_path: Path) -> None:
    for count in (7_000, 8_100, 9_300, 10_900):
        table = create_table(lake(tmp_path / str(count)))
        table.append(noise(0, count))
        table.append(noise(count, count))
        rewrite(table, target_file_size_bytes=TARGET)
        sizes = [file.file_size_in_bytes for file in data_files(table)]
        assert min(sizes) >= 0.75 * TARGET, (count, sizes)
        assert max(sizes) <= 1.8 * TARGET, (count, sizes)


def test_a_large_file_is_split(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path))
    table.append(noise(0, 12_000))
    rewrite(table, target_file_size_bytes=TARGET // 2)
    files = data_files(table)
    assert len(files) == 3
    assert sum(file.record_count for file in files) == 12_000
    assert not work(table, target_file_size_bytes=TARGET // 2).found


def test_files_that_fit_are_left_alone(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path))
    table.append(noise(0, 3_000))
    size = data_files(table)[0].file_size_in_bytes
    table.append(rows(5000, 10))
    table.append(rows(5010, 10))
    result = rewrite(table, target_file_size_bytes=size)
    assert result.files_rewritten == 2


def test_metrics_follow_the_tables_modes(tmp_path: Path) -> None:
    table = small_files(
        lake(tmp_path),
        2,
        properties={
            "write.metadata.metrics.default": "truncate(4)",
            "write.metadata.metrics.column.part": "none",
            "write.metadata.metrics.column.id": "counts",
            "write.parquet.compression-codec": "snappy",
        },
    )
    rewrite(table)
    file = data_files(table)[0]
    assert dict(file.lower_bounds) == {3: b"text"}
    assert dict(file.upper_bounds) == {3: b"texu"}
    assert set(file.value_counts) == {1, 3}
    footer = pq.read_metadata(local_path(file.file_path))
    assert footer.row_group(0).column(0).compression == "SNAPPY"
    assert list(file.split_offsets) == [4]
    assert file.sort_order_id is None


@pytest.mark.parametrize("version", ["1", "2"])
def test_partition_and_spec_of_the_input_are_kept(tmp_path: Path, version: str) -> None:
    table = small_files(lake(tmp_path), 2, parts=("a", "b"), properties={"format-version": version})
    with table.update_spec() as update:
        update.remove_field("part")
        update.add_field("id", BucketTransform(4), "bucketed")
    before = rows_digest(table)
    rewrite(table)
    assert sorted((file.spec_id, file.partition[0]) for file in data_files(table)) == [(0, "a"), (0, "b")]
    assert rows_digest(table) == before
    assert table.scan(row_filter="part = 'a'").to_arrow().num_rows == 20


def test_a_partition_column_dropped_since_does_not_stop_the_rewrite(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 2, parts=("a", "b"))
    with table.update_spec() as update:
        update.remove_field("part")
    with table.update_schema() as update:
        update.delete_column("part")
    rewrite(table)
    assert len(data_files(table)) == 2
    assert ids(table) == [*range(40)]


@pytest.mark.parametrize("operation", [rewrite, rewrite_all_manifests])
def test_partition_values_whose_type_no_schema_tells_any_more_are_left_alone(
    tmp_path: Path, operation: Callable[[Table], Any]
) -> None:
    table = small_files(lake(tmp_path), 2, parts=("a", "b"))
    with table.update_spec() as spec:
        spec.remove_field("part")
    with table.update_schema() as schema:
        schema.delete_column("part")
    with table.transaction() as transaction:
        transaction._apply((RemoveSchemasUpdate(schema_ids=[0]),))
    before = stored_files(table)
    with pytest.raises(UnsupportedTableFeature, match=r"partition spec 0 .* columns with ids \[2\], which no"):
        operation(table)
    assert stored_files(table) == before


def test_files_move_to_the_output_spec_when_asked(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path))
    append_files(table, 3, parts=("a", "b"))
    with table.update_spec() as update:
        update.add_identity("part")
    before = rows_digest(table)
    assert rewrite(table, output_spec_id=1).changed
    assert sorted((file.spec_id, file.partition[0]) for file in data_files(table)) == [(1, "a"), (1, "b")]
    assert rows_digest(table) == before
    assert not work(table, output_spec_id=1).found


def test_an_output_spec_that_cannot_be_computed_is_refused_by_name(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 2)
    with table.update_spec() as update:
        update.add_field("id", BucketTransform(4), "bucketed")
    with pytest.raises(UnsupportedSetting, match=r"outputSpecId=1.*bucketed"):
        rewrite(table, output_spec_id=1)
    with pytest.raises(ConfigurationError, match="outputSpecId=7"):
        rewrite(table, output_spec_id=7)


EVERY_TYPE = Schema(
    NestedField(1, "id", LongType(), required=False),
    NestedField(2, "dotted.name", StringType(), required=False),
    NestedField(3, "at", TimestamptzType(), required=False),
    NestedField(4, "amount", DecimalType(12, 2), required=False),
    NestedField(5, "key", UUIDType(), required=False),
    NestedField(6, "fixed", FixedType(4), required=False),
    NestedField(7, "clock", TimeType(), required=False),
    NestedField(8, "list", ListType(20, LongType(), element_required=False), required=False),
    NestedField(9, "map", MapType(21, StringType(), 22, DoubleType(), value_required=False), required=False),
    NestedField(
        10,
        "struct",
        StructType(
            NestedField(23, "1st.x", IntegerType(), required=False), NestedField(24, "y", StringType(), required=False)
        ),
        required=False,
    ),
    NestedField(11, "day", DateType(), required=False),
)


def of_every_type(count: int, seed: int) -> pa.Table:
    maker = random.Random(seed)
    made = []
    for number in range(count):
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=maker.randrange(10**6), microseconds=7)
        row = {
            "id": maker.randrange(100),
            "dotted.name": maker.choice([None, "x", f"y{maker.randrange(50)}"]),
            "at": at,
            "amount": Decimal(maker.randrange(10**6)) / 100,
            "key": UUID(int=maker.getrandbits(128)).bytes,
            "fixed": maker.randbytes(4),
            "clock": at.time(),
            "list": [1, None, 3] if number % 3 else None,
            "map": [("k", 1.5)] if number % 4 else [],
            "struct": {"1st.x": number, "y": "q"} if number % 5 else None,
            "day": at.date(),
        }
        made.append({name: None if number % 11 == 0 and name != "id" else value for name, value in row.items()})
    return pa.Table.from_pylist(made, schema=schema_to_pyarrow(EVERY_TYPE, include_field_ids=False))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"strategy": "SORT", "sort_order": ["`dotted.name` DESC NULLS LAST", "id"]},
        {"strategy": "ZORDER", "z_order_columns": ["id", "dotted.name", "at", "amount"]},
        {"strategy": "ZORDER", "z_order_columns": ["key", "day", "fixed", "clock"]},
    ],
    ids=["binpack", "sort", "z-order", "z-order of odd types"],
)
@pytest.mark.parametrize("memory", [MEMORY, SPILLING], ids=["in memory", "spilled"])
def test_every_type_survives_every_strategy(tmp_path: Path, settings: dict[str, Any], memory: int) -> None:
    table = create_table(lake(tmp_path), schema=EVERY_TYPE)
    for number in range(3):
        table.append(of_every_type(100, number))
    before = rows_digest(table)
    assert rewrite(table, memory=memory, **settings).changed
    assert rows_digest(table) == before
    assert len(data_files(table)) == 1
    assert not work(table, **settings).found


def test_rows_survive_schema_evolution(tmp_path: Path) -> None:
    schema = Schema(
        NestedField(1, "id", IntegerType(), required=False),
        NestedField(2, "old", StringType(), required=False),
        NestedField(3, "s", StructType(NestedField(4, "a", IntegerType(), required=False)), required=False),
    )
    table = create_table(lake(tmp_path), schema=schema)
    table.append(
        pa.table(
            {"id": pa.array([1, 2], pa.int32()), "old": ["x", "y"], "s": [{"a": 1}, None]},
            schema=schema_to_pyarrow(schema, include_field_ids=False),
        )
    )
    with table.update_schema() as update:
        update.rename_column("old", "new").update_column("id", LongType())
        update.add_column(("s", "b"), StringType()).add_column("late", LongType())
    with table.update_schema() as update:
        update.move_first("new")
    table.append(
        pa.Table.from_pylist(
            [{"new": "z", "id": 2**40, "s": {"a": 5, "b": "b"}, "late": 9}],
            schema=schema_to_pyarrow(table.schema(), include_field_ids=False),
        )
    )
    before = rows_digest(table)
    rewrite(table)
    assert len(data_files(table)) == 1
    assert rows_digest(table) == before


def test_files_without_field_ids_are_read_by_the_name_mapping(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path))
    for number in range(2):
        path = tmp_path / f"migrated-{number}.parquet"
        pq.write_table(rows(number * 10, 10), path)
        table.add_files([f"file://{path}"])
    before = rows_digest(table)
    rewrite(table)
    assert len(data_files(table)) == 1
    assert rows_digest(table) == before


def test_a_date_partition_keeps_its_value(tmp_path: Path) -> None:
    spec = PartitionSpec(PartitionField(11, 1000, IdentityTransform(), "day"))
    table = lake(tmp_path).create_table("db.days", schema=EVERY_TYPE, partition_spec=spec)
    one_day = of_every_type(2, 3).slice(1)
    table.append(one_day)
    table.append(one_day)
    before, partition = rows_digest(table), data_files(table)[0].partition
    assert rewrite(table).files_rewritten == 2
    assert data_files(table)[0].partition == partition
    assert rows_digest(table) == before


def order_by_id(tmp_path: Path) -> Table:
    order = SortOrder(
        SortField(1, transform=IdentityTransform(), direction=SortDirection.DESC, null_order=NullOrder.NULLS_LAST)
    )
    return lake(tmp_path).create_table("db.ordered", schema=SCHEMA, sort_order=order)


def test_the_tables_own_order_is_followed_and_recorded(tmp_path: Path) -> None:
    table = order_by_id(tmp_path)
    append_files(table, 3)
    assert rewrite(table, strategy="SORT").changed
    file = data_files(table)[0]
    assert file.sort_order_id == table.sort_order().order_id == 1
    assert pq.read_table(local_path(file.file_path))["id"].to_pylist() == [*range(29, -1, -1)]
    assert not work(table, strategy="SORT").found
    append_files(table, 1, start=100)
    assert work(table, strategy="SORT").found


def test_one_unsorted_file_is_work_for_sort_but_not_for_binpack(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 1)
    assert not work(table).found
    settings = {"strategy": "SORT", "sort_order": ["id desc"]}
    assert work(table, **settings).found
    rewrite(table, **settings)
    assert pq.read_table(local_path(data_files(table)[0].file_path))["id"].to_pylist() == [*range(9, -1, -1)]
    assert not work(table, **settings).found


def test_z_order_brings_near_rows_together_in_both_columns(tmp_path: Path) -> None:
    schema = Schema(NestedField(1, "x", LongType(), required=False), NestedField(2, "y", LongType(), required=False))
    table = create_table(lake(tmp_path), schema=schema)
    points = [(x, y) for x in range(64) for y in range(64)]
    random.Random(1).shuffle(points)
    for half in (points[::2], points[1::2]):
        table.append(pa.table({"x": [x for x, _ in half], "y": [y for _, y in half]}))
    rewrite(table, strategy="ZORDER", z_order_columns=["x", "y"])
    written = pq.read_table(local_path(data_files(table)[0].file_path)).to_pydict()
    for column in ("x", "y"):
        spans = [max(part) - min(part) for part in (written[column][i : i + 256] for i in range(0, 4096, 256))]
        assert max(spans) < 40, (column, spans)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "SORT"}, "no sort order of its own"),
        ({"strategy": "SORT", "sort_order": ["nope"]}, "'nope' is no column"),
        ({"strategy": "SORT", "sort_order": ["id up"]}, "'id up'"),
        ({"strategy": "ZORDER", "z_order_columns": ["nope"]}, "'nope' is no column"),
        ({"filter": "nope = 1"}, "filter 'nope = 1'"),
        ({"filter": "id ="}, "filter 'id ='"),
    ],
)
def test_settings_that_the_table_cannot_meet_are_named(
    tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    table = small_files(lake(tmp_path), 2)
    with pytest.raises(ConfigurationError, match=message):
        rewrite(table, **settings)


def test_a_filter_chooses_files_by_their_bounds(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 6)
    assert rewrite(table, filter="id >= 20 and id < 40").files_rewritten == 2
    assert len(data_files(table)) == 5
    assert ids(table) == [*range(60)]


def test_partial_progress_commits_in_parts(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 2, parts=("a", "b", "c"))
    context = context_for(table)
    result = rewrite(table, context, partial_progress_enabled=True, partial_progress_max_commits=2)
    assert len(context.commits_done) == len(result.details["commits"]) == 2
    assert result.files_rewritten == 6
    assert len(data_files(table)) == 3
    assert ids(table) == [*range(60)]


@pytest.mark.parametrize(
    ("limit", "value"),
    [("MOST_COMMIT_FILES", 4), ("MOST_COMMIT_COLUMNS", 6)],
    ids=["files that are replaced", "columns of new files"],
)
def test_what_is_too_much_for_one_commit_is_spread_over_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    table = small_files(lake(tmp_path), 2, parts=("a", "b", "c"))
    assert len(table.schema().fields) == 3
    monkeypatch.setattr(rewrite_data, limit, value)
    context = context_for(table)
    result = rewrite(table, context)
    assert len(context.commits_done) == len(result.details["commits"]) == 2
    assert (result.files_rewritten, result.files_added, result.details["file_groups"]) == (6, 3, 3)
    assert ids(table) == [*range(60)]


def test_what_is_too_much_for_one_run_is_told_and_left_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = small_files(lake(tmp_path), 2, parts=("a", "b", "c"))
    monkeypatch.setattr(grouping, "MOST_RUN_GROUPS", 2)
    left = "2 more data files of 1 file group left for the next run"
    assert left in work(table).summary
    first = rewrite(table)
    assert (first.files_rewritten, first.details["file_groups_left"]) == (4, 1)
    assert left in first.message
    second = rewrite(table)
    assert (second.files_rewritten, second.details["file_groups_left"]) == (2, 0)
    assert "left" not in second.message
    assert not rewrite(table).changed
    assert ids(table) == [*range(60)]


def test_groups_are_opened_a_few_at_a_time_where_columns_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = small_files(lake(tmp_path), 2, parts=("a", "b", "c"))
    opened: list[int] = []
    expectations = group_writer.expectations

    def counted(io: Any, manifests: Any, groups: Any, schema: Any) -> Any:
        opened.append(len(groups))
        return expectations(io, manifests, groups, schema)

    monkeypatch.setattr(group_writer, "expectations", counted)
    monkeypatch.setattr(group_writer, "MOST_OPEN_COLUMNS", 2 * len(table.schema().fields))
    rewrite(table)
    assert opened == [2, 1]
    assert ids(table) == [*range(60)]


@pytest.mark.parametrize(("order", "first"), [("BYTES_DESC", "b"), ("BYTES_ASC", "a"), ("FILES_DESC", "a")])
def test_groups_are_rewritten_in_the_order_asked_for(tmp_path: Path, order: str, first: str) -> None:
    table = create_table(lake(tmp_path), partitioned=True)
    append_files(table, 3, 5, parts=("a",))
    append_files(table, 2, 500, parts=("b",))
    context = context_for(table)
    rewrite(table, context, rewrite_job_order=order, max_concurrent_file_group_rewrites=1)
    written = [path for path in context.journal.outputs if path.endswith(".parquet")]
    assert f"part={first}/" in written[0]


def test_a_second_run_finds_nothing(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 4, parts=("a", "b"))
    assert work(table).found
    rewrite(table)
    assert not work(table).found
    assert not rewrite(table).changed
    assert len(entries(table)) == 2


def test_files_move_to_a_spec_on_a_column_whose_name_is_no_identifier(tmp_path: Path) -> None:
    names = ("a.b", "with space")
    fields = [NestedField(1 + number, name, StringType(), required=False) for number, name in enumerate(names)]
    properties = {"format-version": "2", **FAST_RETRIES}
    table = lake(tmp_path).create_table("db.named", schema=Schema(*fields), properties=properties)
    arrow = pa.schema([pa.field(name, pa.string()) for name in names])
    table.append(pa.table([["x", "y", None], ["1", "2", "2"]], schema=arrow))
    with table.update_spec() as update:
        update.add_identity("a.b").add_identity("with space")
    before = rows_digest(table)
    assert rewrite(table, output_spec_id=1).files_added == 3
    assert rows_digest(table) == before
    assert not work(table, output_spec_id=1).found
