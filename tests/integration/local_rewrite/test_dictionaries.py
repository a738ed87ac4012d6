"""Columns of few values, read and written as dictionaries: the rows, statistics and types of any other way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness.merge_on_read import equality_delete, position_delete
from harness.tables import create_table, data_files, lake, local_path
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import BinaryType, ListType, LongType, NestedField, StringType
from rewriting import rewrite

from airflow_provider_floe.engines.local import encodings, rewrite_group

SCHEMA = Schema(
    NestedField(1, "id", LongType(), required=True),
    NestedField(2, "state", StringType(), required=True),
    NestedField(3, "note", StringType(), required=False),
    NestedField(4, "mark", BinaryType(), required=False),
    NestedField(5, "gone", StringType(), required=False),
    NestedField(6, "tags", ListType(8, StringType(), element_required=False), required=False),
    NestedField(7, "late", StringType(), required=False),
)
"""``late`` has few values in the first file only."""
ROWS = 2_000
FILES = 3


def make(first: int, count: int, **types: pa.DataType) -> pa.Table:
    """Values come one after the other, so that each file has some that another lacks."""
    numbers = range(first, first + count)
    columns: dict[str, Any] = {
        "id": pa.array(numbers, pa.int64()),
        "state": pa.array([f"state {n // 300}" for n in numbers], pa.string()),
        "note": pa.array(
            [None if n % 3 == 0 else ["", "déjà vu", "zz" * 30][n // 7 % 3] for n in numbers], pa.string()
        ),
        "mark": pa.array([None if n % 5 == 0 else bytes([255, n % 2]) for n in numbers], pa.binary()),
        "gone": pa.nulls(count, pa.string()),
        "tags": pa.array([[None, f"tag {n % 4}"] if n % 2 else None for n in numbers], pa.list_(pa.string())),
        "late": pa.array([f"late {n}" if n >= ROWS else "early" for n in numbers], pa.string()),
    }
    made = pa.table(columns)
    for name, kind in types.items():
        made = made.set_column(made.schema.names.index(name), name, made.column(name).cast(kind))
    fields = [made.schema.field(number).with_nullable(not field.required) for number, field in enumerate(SCHEMA.fields)]
    ids = [
        field.with_metadata({"PARQUET:field_id": str(known.field_id)})
        for field, known in zip(fields, SCHEMA.fields, strict=True)
    ]
    tags = pa.field("element", pa.string(), metadata={"PARQUET:field_id": "8"})
    ids[5] = ids[5].with_type(pa.list_(tags))
    return made.cast(pa.schema(ids))


def table_of(tmp_path: Path, files: list[pa.Table], properties: dict[str, str] | None = None, **options: Any) -> Table:
    table = create_table(lake(tmp_path), schema=SCHEMA, properties=properties or {})
    for number, rows in enumerate(files):
        pq.write_table(rows, tmp_path / f"{number}.parquet", compression="zstd", row_group_size=700, **options)
    table.add_files([f"file://{tmp_path}/{number}.parquet" for number in range(len(files))])
    return table


@pytest.fixture(autouse=True)
def worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrite_group, "_WORTH_A_THREAD", 0)


def written(table: Table) -> list[str]:
    return [str(local_path(file.file_path)) for file in data_files(table)]


def contents(table: Table) -> list[Any]:
    return duckdb.execute("SELECT * FROM read_parquet(?) ORDER BY id", [written(table)]).fetchall()


def is_dictionary(table: Table, column: str) -> bool:
    group = pq.read_metadata(written(table)[0]).row_group(0)
    chunk = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == column)
    return "RLE_DICTIONARY" in chunk.encodings and chunk.total_uncompressed_size < 2 * chunk.num_values


def check_statistics(table: Table) -> None:
    """Those of the footer and of the manifest, against the values as DuckDB reads them."""
    for file in data_files(table):
        path = str(local_path(file.file_path))
        assert pq.read_metadata(path).num_row_groups == 1
        for field in SCHEMA.fields:
            if field.name == "tags":
                continue
            name = field.name
            low, high, values = duckdb.execute(
                f'SELECT min("{name}"), max("{name}"), count("{name}") FROM read_parquet(?)', [path]
            ).fetchall()[0]
            rows = file.record_count
            chunk = pq.read_metadata(path).row_group(0).column(field.field_id - 1)
            assert chunk.path_in_schema == name
            assert chunk.statistics.null_count == rows - values
            assert (file.value_counts[field.field_id], file.null_value_counts[field.field_id]) == (rows, rows - values)
            assert chunk.statistics.has_min_max == (values > 0)
            if values and name != "id":
                assert (chunk.statistics.min, chunk.statistics.max) == (low, high)
                bound = low.encode() if isinstance(low, str) else low
                assert file.lower_bounds[field.field_id] == bound[:16]


def test_rows_types_and_statistics_are_those_of_a_rewrite_without_dictionaries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [make(number * ROWS, ROWS) for number in range(FILES)]
    plain, table = (tmp_path / "plain", tmp_path / "dictionaries")
    plain.mkdir()
    table.mkdir()
    ours = table_of(table, files)
    before = contents(ours)
    rewrite(ours)
    assert contents(ours) == before
    check_statistics(ours)
    assert is_dictionary(ours, "state")
    assert is_dictionary(ours, "note")
    with monkeypatch.context() as patch:
        patch.setattr(rewrite_group, "columns_of_few_values", lambda footer: frozenset())
        theirs = table_of(plain, files)
        rewrite(theirs)
    one, other = (pq.read_schema(written(table)[0]) for table in (ours, theirs))
    assert one.equals(other, check_metadata=True)
    assert pq.read_table(written(ours)[0]).equals(pq.read_table(written(theirs)[0]))
    one, other = (pq.read_metadata(written(table)[0]) for table in (ours, theirs))
    assert one.schema.equals(other.schema)
    for number in range(one.num_columns):
        assert one.row_group(0).column(number).statistics == other.row_group(0).column(number).statistics


def test_few_values_are_known_by_the_footer(tmp_path: Path) -> None:
    pq.write_table(make(0, ROWS), tmp_path / "few.parquet")
    assert {"state", "note", "mark", "late"} <= encodings.columns_of_few_values(
        pq.read_metadata(tmp_path / "few.parquet")
    )
    pq.write_table(make(ROWS, ROWS), tmp_path / "many.parquet")
    assert "late" not in encodings.columns_of_few_values(pq.read_metadata(tmp_path / "many.parquet"))
    pq.write_table(make(0, ROWS), tmp_path / "plain.parquet", use_dictionary=False)
    assert not encodings.columns_of_few_values(pq.read_metadata(tmp_path / "plain.parquet"))
    pq.write_table(make(0, 0), tmp_path / "empty.parquet")
    assert not encodings.columns_of_few_values(pq.read_metadata(tmp_path / "empty.parquet"))


def test_files_that_come_in_another_way_join_in(tmp_path: Path) -> None:
    """Large strings, no dictionary at all, an empty file, and one whose columns stand in another order."""
    large = make(ROWS, ROWS, state=pa.large_string(), mark=pa.large_binary())
    table = table_of(tmp_path, [make(0, ROWS), large, make(0, 0)])
    pq.write_table(make(2 * ROWS, ROWS), tmp_path / "plain.parquet", use_dictionary=False)
    turned = make(3 * ROWS, ROWS)
    pq.write_table(turned.select(turned.schema.names[::-1]), tmp_path / "turned.parquet")
    table.add_files([f"file://{tmp_path}/plain.parquet", f"file://{tmp_path}/turned.parquet"])
    before = contents(table)
    rewrite(table)
    assert contents(table) == before
    assert len(before) == 4 * ROWS
    assert is_dictionary(table, "state")
    check_statistics(table)


def test_deletes_take_rows_out_of_dictionaries_and_out_of_statistics(tmp_path: Path) -> None:
    table = table_of(tmp_path, [make(number * ROWS, ROWS) for number in range(FILES)])
    first = next(file.file_path for file in data_files(table) if file.file_path.endswith("/0.parquet"))
    position_delete(table, {first: list(range(600))})  # all of "state 0" and "state 1"
    equality_delete(table, pa.table({"state": [f"state {3 * ROWS // 300 - 1}"]}), ["state"])
    before = [row for row in contents(table) if row[0] >= 600 and row[1] != "state 19"]
    rewrite(table)
    assert contents(table) == before
    check_statistics(table)
    assert min(row[1] for row in before) == "state 10"
    assert {bytes(file.upper_bounds[2]) for file in data_files(table)} == {b"state 9"}


def test_columns_with_a_bloom_filter_are_written_as_ever(tmp_path: Path) -> None:
    name = "write.parquet.bloom-filter-enabled.column.state"
    table = table_of(tmp_path, [make(number * ROWS, ROWS) for number in range(FILES)], {name: "true"})
    before = contents(table)
    rewrite(table)
    assert contents(table) == before
    probe = "SELECT bloom_filter_excludes FROM parquet_bloom_probe(?, 'state', ?)"
    found = [duckdb.execute(probe, [written(table)[0], text]).fetchall() for text in ("state 7", "no such state")]
    assert found == [[(False,)], [(True,)]]


@pytest.mark.parametrize(
    ("settings", "in_order"),
    [
        ({"strategy": "SORT", "sort_order": ["id DESC"]}, lambda row: -row["id"]),
        ({"strategy": "SORT", "sort_order": ["state", "id"]}, lambda row: (row["state"], row["id"])),
        ({"strategy": "ZORDER", "z_order_columns": ["id", "state"]}, None),
    ],
    ids=["by another column", "by itself", "z-order"],
)
def test_sorted_rows_keep_their_dictionaries(
    tmp_path: Path, settings: dict[str, Any], in_order: Callable[[dict[str, Any]], Any] | None
) -> None:
    table = table_of(tmp_path, [make(number * ROWS, ROWS) for number in range(FILES)])
    before = contents(table)
    rewrite(table, **settings)
    assert contents(table) == before
    assert is_dictionary(table, "note")
    check_statistics(table)
    if in_order is not None:
        rows = [row for path in written(table) for row in pq.read_table(path).to_pylist()]
        assert rows == sorted(rows, key=in_order)
