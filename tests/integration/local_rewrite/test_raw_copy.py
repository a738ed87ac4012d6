"""Row groups that are copied as they are: the same rows to every reader, and only where nothing about them changes."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness.merge_on_read import position_delete
from harness.oracle import oracle_digest
from harness.tables import (
    context_for,
    create_table,
    data_files,
    lake,
    local_path,
    missing_files,
    rows_digest,
    stored_files,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import (
    DecimalType,
    DoubleType,
    ListType,
    LongType,
    NestedField,
    StringType,
    StructType,
    TimestamptzType,
    UUIDType,
)
from rewriting import rewrite, work

from airflow_provider_floe.engines.local import raw_copy
from airflow_provider_floe.engines.local.parquet_footer import parse_tail
from airflow_provider_floe.engines.local.thrift import decode

TARGET = 500_000
"""An eighth of it is what a row group has to have; the files of :func:`large` have a fifth."""

SHAPES = Schema(
    NestedField(1, "id", LongType(), required=True),
    NestedField(2, "price", DecimalType(15, 2), required=False),
    NestedField(3, "ratio", DoubleType(), required=False),
    NestedField(4, "at", TimestamptzType(), required=False),
    NestedField(5, "key", UUIDType(), required=False),
    NestedField(
        6,
        "who",
        StructType(NestedField(7, "name", StringType(), required=False), NestedField(8, "age", LongType(), False)),
        required=False,
    ),
    NestedField(9, "tags", ListType(10, StringType(), element_required=False), required=False),
)


def random_rows(first: int, count: int) -> pa.Table:
    """Rows of :data:`SHAPES` that hardly compress, with NULLs and NaN."""
    numbers = range(first, first + count)
    made = {
        "id": list(numbers),
        "price": [None if n % 7 == 0 else (n * 7919) % 10**9 for n in numbers],
        "ratio": [None if n % 5 == 0 else math.nan if n % 11 == 0 else math.sin(n) for n in numbers],
        "at": [n * 1_000_003 for n in numbers],
        "key": [(n * 2**64 + n * n).to_bytes(16, "big") for n in numbers],
        "who": [None if n % 9 == 0 else {"name": f"{n * n:x}" * 3, "age": n % 100} for n in numbers],
        "tags": [None if n % 8 == 0 else [f"{n:x}", None] * (n % 3) for n in numbers],
    }
    schema = schema_to_pyarrow(SHAPES, include_field_ids=False)
    plain = {
        "price": pa.array(made["price"], pa.int64()).cast(pa.decimal128(19, 0)).cast(pa.decimal128(15, 2)),
        "at": pa.array(made["at"], pa.timestamp("us", "UTC")),
        "key": pa.array(made["key"], pa.binary(16)),
    }
    arrays = [plain.get(name, made[name]) for name in schema.names]
    return pa.table(
        [
            kind.wrap_array(array) if isinstance(kind := field.type, pa.BaseExtensionType) else pa.array(array, kind)
            for array, field in zip(arrays, schema, strict=True)
        ],
        schema=schema,
    )


def digest(table: Table) -> list[str]:
    """All rows, as text: there NaN is NaN."""
    return [repr(row) for row in rows_digest(table)]


def large(table: Table, files: int, rows_each: int = 2000) -> Table:
    """Files whose one row group is worth copying for :data:`TARGET`."""
    for number in range(files):
        table.append(random_rows(number * rows_each, rows_each))
    return table


def test_the_same_rows_to_every_reader_and_metrics_as_if_written_anew(tmp_path: Path) -> None:
    catalog = lake(tmp_path)
    table = large(create_table(catalog, schema=SHAPES), 4)
    before, theirs = digest(table), oracle_digest(table.metadata_location)
    sources = data_files(table)
    target = TARGET
    assert work(table, target_file_size_bytes=target).found
    result = rewrite(table, target_file_size_bytes=target)
    assert result.details["file_groups_copied"] == 1
    (file,) = data_files(table)
    assert digest(table) == before
    assert oracle_digest(table.metadata_location) == theirs
    decoded = large(create_table(catalog, "decoded", schema=SHAPES), 4)
    assert rewrite(decoded, target_file_size_bytes=100 * TARGET).details["file_groups_copied"] == 0
    (other,) = data_files(decoded)
    for name in ("record_count", "value_counts", "null_value_counts", "lower_bounds", "upper_bounds"):
        assert getattr(file, name) == getattr(other, name), name
    assert file.file_size_in_bytes == local_path(file.file_path).stat().st_size
    assert len(file.split_offsets) == len(sources)
    for field_id, size in file.column_sizes.items():
        assert size == sum(one.column_sizes[field_id] for one in sources)
    assert file.sort_order_id is None
    assert missing_files(table) == []
    assert not work(table, target_file_size_bytes=target).found
    assert not rewrite(table, target_file_size_bytes=target).changed


def test_files_come_out_even_and_large_ones_are_split_between_their_row_groups(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path), schema=SHAPES)
    path = tmp_path / "large.parquet"
    made = random_rows(0, 12_000).cast(schema_to_pyarrow(table.schema()))
    pq.write_table(made, path, row_group_size=500, compression="zstd")
    table.add_files([f"file://{path}"])
    before = digest(table)
    target = path.stat().st_size // 4
    result = rewrite(table, target_file_size_bytes=target)
    assert result.details["file_groups_copied"] == 1
    assert len(data_files(table)) == 4
    assert all(0.75 * target < file.file_size_in_bytes < 1.8 * target for file in data_files(table))
    assert digest(table) == before
    assert not rewrite(table, target_file_size_bytes=target).changed


def deletes(table: Table) -> None:
    position_delete(table, {data_files(table)[0].file_path: [3]})


def another_codec(table: Table) -> None:
    with table.transaction() as change:
        change.set_properties({"write.parquet.compression-codec": "snappy"})


def another_column(table: Table) -> None:
    with table.update_schema() as update:
        update.add_column("more", LongType())


def another_name(table: Table) -> None:
    with table.update_schema() as update:
        update.rename_column("who.name", "called")


def small_groups(table: Table) -> None:
    for number in range(60):
        table.append(random_rows(10**6 + number, 1))


@pytest.mark.parametrize(
    ("change", "arguments", "why"),
    [
        (deletes, {}, "1 delete file may remove rows"),
        (another_codec, {}, "compressed by zstd, and are to be by snappy"),
        (another_column, {}, "do not have the table's current columns"),
        (another_name, {}, "do not have the table's current columns"),
        (small_groups, {}, "on average are smaller than"),
        (lambda table: None, {"strategy": "SORT", "sort_order": ["id DESC"]}, "its rows are put into order"),
        (lambda table: None, {"strategy": "ZORDER", "z_order_columns": ["id", "at"]}, "its rows are put into order"),
    ],
)
def test_what_is_not_a_mere_copy_is_decoded_and_the_log_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Any, arguments: dict[str, Any], why: str
) -> None:
    table = large(create_table(lake(tmp_path), schema=SHAPES), 3)
    change(table)
    table.refresh()
    before = digest(table)
    with caplog.at_level(logging.INFO):
        result = rewrite(table, target_file_size_bytes=TARGET, **arguments)
    assert result.details["file_groups_copied"] == 0
    assert why in caplog.text
    assert digest(table) == before


def test_page_indexes_and_bloom_filters_come_along(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path))
    names = ["one.parquet", "two.parquet"]
    for number, name in enumerate(names):
        first = number * 9000
        made = f"SELECT i AS id, 'a' AS part, 'text ' || (i % 500 * 2) AS text FROM range({first}, {first + 9000}) t(i)"
        duckdb.execute(
            f"COPY ({made}) TO '{tmp_path}/{name}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 3000, "
            "FIELD_IDS {id: 1, part: 2, text: 3})"
        )
        table.add_files([f"file://{tmp_path}/{name}"])
    rewrite(table, target_file_size_bytes=40_000)
    copied = local_path(data_files(table)[0].file_path)

    def excluded(path: Path | str, text: str) -> list[bool]:
        found = duckdb.execute(f"SELECT bloom_filter_excludes FROM parquet_bloom_probe('{path}', 'text', '{text}')")
        return [row[0] for row in found.fetchall()]

    for text in ("text 4", *(f"text {odd}" for odd in range(1, 40, 2))):
        assert excluded(copied, text) == excluded(tmp_path / names[0], text) + excluded(tmp_path / names[1], text)
    assert not any(excluded(copied, "text 4"))
    assert any(excluded(copied, "text 5"))
    indexed = create_table(table.catalog, "indexed")
    for name in names:
        pq.write_table(
            pq.read_table(tmp_path / name).cast(schema_to_pyarrow(indexed.schema())),
            tmp_path / f"indexed-{name}",
            compression="zstd",
            write_page_index=True,
            data_page_size=4096,
        )
        indexed.add_files([f"file://{tmp_path}/indexed-{name}"])
    assert rewrite(indexed, target_file_size_bytes=60_000).details["file_groups_copied"] == 1
    assert sorted(pages(local_path(data_files(indexed)[0].file_path))) == sorted(
        page for name in names for page in pages(tmp_path / f"indexed-{name}")
    )


def pages(path: Path) -> list[tuple[bytes, bytes]]:
    """For each page that a file's offset indexes name, its column index and its bytes."""
    file = path.read_bytes()
    footer, _ = decode(file[-8 - parse_tail(file[-8:]) : -8])
    found = []
    for group in footer[4][1][1]:
        for chunk in group[1][1][1]:
            at, length, bounds, bounds_length = (chunk[number][1] for number in (4, 5, 6, 7))
            for page in decode(file[at : at + length])[0][1][1][1]:
                start, size = page[1][1], page[2][1]
                found.append((file[bounds : bounds + bounds_length], file[start : start + size]))
    assert found
    return found


def test_a_copy_that_is_not_what_it_should_be_is_thrown_away_and_the_rows_decoded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = large(create_table(lake(tmp_path), schema=SHAPES), 3)
    before = digest(table)
    real = raw_copy._Target.copy

    def shifted(self: Any, source: Any, start: int, length: int, progress: Any) -> None:
        real(self, source, start + 1, length, progress)

    monkeypatch.setattr(raw_copy._Target, "copy", shifted)
    result = rewrite(table, target_file_size_bytes=TARGET)
    assert "does not hold the bytes of its source" in caplog.text
    assert result.details["file_groups_copied"] == 0
    assert digest(table) == before
    assert len([path for path in stored_files(table) if path.suffix == ".parquet"]) == 4


def test_a_stopped_copy_leaves_nothing_behind(tmp_path: Path) -> None:
    table = large(create_table(lake(tmp_path), schema=SHAPES), 3)
    before, stored = digest(table), stored_files(table)

    class Stopped(Exception):
        pass

    def stop() -> None:
        if len(stored_files(table)) > len(stored):
            raise Stopped

    with pytest.raises(Stopped):
        rewrite(table, context_for(table, on_checkpoint=stop), target_file_size_bytes=TARGET)
    assert stored_files(table) == stored
    assert digest(table) == before


FILES = st.lists(
    st.lists(
        st.tuples(
            st.none() | st.integers(-(2**40), 2**40),
            st.none() | st.floats(),
            st.none() | st.text(max_size=8),
        ),
        min_size=1,
        max_size=30,
    ),
    min_size=2,
    max_size=5,
)


@settings(max_examples=40)
@given(FILES, st.sampled_from(("pyarrow", "duckdb")), st.integers(1, 20))
def test_any_files_read_after_the_copy_as_before(files: Sequence[Any], writer: str, group: int) -> None:
    schema = Schema(
        NestedField(1, "number", LongType(), required=False),
        NestedField(2, "ratio", DoubleType(), required=False),
        NestedField(3, "text", StringType(), required=False),
    )
    arrow = schema_to_pyarrow(schema)
    with TemporaryDirectory() as folder:
        table = create_table(lake(Path(folder)), schema=schema)
        paths = []
        for number, content in enumerate(files):
            made = pa.table([list(column) for column in zip(*content, strict=True)], schema=arrow)
            path = f"{folder}/{number}.parquet"
            if writer == "pyarrow":
                pq.write_table(made, path, compression="zstd", row_group_size=group, write_page_index=group % 2 == 0)
            else:
                options = "COMPRESSION zstd, FIELD_IDS {number: 1, ratio: 2, text: 3}"
                duckdb.execute(f"COPY (SELECT * FROM made) TO '{path}' (FORMAT parquet, {options})")
            paths.append(path)
        table.add_files([f"file://{path}" for path in paths])
        sizes = [Path(path).stat().st_size for path in paths]
        row_groups = sum(pq.read_metadata(path).num_row_groups for path in paths)
        # Row groups of a few bytes are worth copying for a target of eight times as much.
        target = max(1, 8 * (sum(sizes) // row_groups) // 2)
        before = [read(paths) for read in (by_pyarrow, by_duckdb)]
        rewrite(table, target_file_size_bytes=target)
        after = [f"{local_path(file.file_path)}" for file in data_files(table)]
        assert [sorted(read(after)) for read in (by_pyarrow, by_duckdb)] == [sorted(one) for one in before]


def by_pyarrow(paths: Sequence[str]) -> list[str]:
    return [repr(row) for path in paths for row in pq.read_table(path).to_pylist()]


def by_duckdb(paths: Sequence[str]) -> list[str]:
    return [
        repr(row) for row in duckdb.execute("SELECT number, ratio, text FROM read_parquet(?)", [list(paths)]).fetchall()
    ]
