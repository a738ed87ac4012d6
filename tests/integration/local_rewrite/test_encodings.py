"""How columns are encoded: what pays by trial, nothing that readers may not know, and the table's own properties."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness.tables import create_table, data_files, lake, local_path, rows_digest, small_files
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import DecimalType, IntegerType, LongType, NestedField, StringType
from rewriting import rewrite

from airflow_provider_floe.engines.local.encodings import LEAST_ROWS, choose
from airflow_provider_floe.errors import ConfigurationError

SCHEMA = Schema(
    NestedField(1, "serial", LongType(), required=False),
    NestedField(2, "state", StringType(), required=False),
    NestedField(3, "note", StringType(), required=False),
    NestedField(4, "price", DecimalType(15, 2), required=False),
    NestedField(5, "shop", IntegerType(), required=False),
)


def enough_rows(tmp_path: Path, **properties: str) -> Table:
    """So many rows that a trial is made: serial and note are all different, state and shop a few values."""
    table = create_table(lake(tmp_path), schema=SCHEMA, properties=properties)
    maker = random.Random(1)
    for number in range(2):
        count = LEAST_ROWS // 2
        made = pa.table(
            {
                "serial": [number * count + n for n in range(count)],
                "state": maker.choices(["open", "shipped", "returned"], k=count),
                "note": [f"note {n * 7919 % 10**6} on {n}" for n in range(count)],
                "price": pa.array([n * 104_729 % 10**7 for n in range(count)])
                .cast(pa.decimal128(19))
                .cast(pa.decimal128(15, 2)),
                "shop": maker.choices(range(50), k=count),
            }
        )
        pq.write_table(made.cast(schema_to_pyarrow(SCHEMA)), tmp_path / f"{number}.parquet", compression="snappy")
        table.add_files([f"file://{tmp_path}/{number}.parquet"])
    return table


def encodings(table: Table) -> dict[str, set[str]]:
    """By column, of the first data file."""
    group = pq.read_metadata(local_path(data_files(table)[0].file_path)).row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    return {column.path_in_schema: set(column.encodings) for column in columns}


def contents(table: Table) -> object:
    paths = [str(local_path(file.file_path)) for file in data_files(table)]
    return duckdb.execute("SELECT count(*), sum(hash(t)) FROM read_parquet(?) t", [paths]).fetchall()


def test_a_dictionary_stands_only_where_it_pays_and_no_encoding_is_new_to_the_table(tmp_path: Path) -> None:
    table = enough_rows(tmp_path)
    before = contents(table)
    size = sum(file.file_size_in_bytes for file in data_files(table))
    rewrite(table)
    found = encodings(table)
    assert {name for name, kinds in found.items() if "RLE_DICTIONARY" in kinds} == {"state", "shop"}
    assert not any(kind.startswith("DELTA") for kinds in found.values() for kind in kinds)
    assert contents(table) == before
    assert data_files(table)[0].file_size_in_bytes < size


def test_delta_encodings_are_used_where_the_owner_allows_them_or_the_files_have_them(tmp_path: Path) -> None:
    table = enough_rows(tmp_path, **{"floe.parquet-encodings": "delta"})
    before = contents(table)
    rewrite(table)
    assert "DELTA_BINARY_PACKED" in encodings(table)["serial"]
    assert "RLE_DICTIONARY" in encodings(table)["state"]
    assert contents(table) == before
    with table.transaction() as change:
        change.remove_properties("floe.parquet-encodings")
    rewrite(table, target_file_size_bytes=data_files(table)[0].file_size_in_bytes // 3)
    assert len(data_files(table)) > 1
    assert contents(table) == before


@pytest.mark.parametrize(
    ("options", "higher"),
    [
        ({"compression": "zstd"}, True),
        ({"compression": "zstd", "compression_level": None}, True),
        ({"compression": "zstd", "compression_level": 1}, False),
        ({"compression": "snappy"}, False),
    ],
)
@pytest.mark.parametrize("delta", [False, True])
def test_a_column_is_compressed_harder_where_that_pays_and_the_table_sets_no_level(
    options: dict[str, Any], higher: bool, delta: bool
) -> None:
    maker = random.Random(1)
    words = ["".join(maker.choices("abcdefghijklmnopqrstuvwxyz", k=maker.randint(2, 9))) for _ in range(400)]
    rows = pa.table(
        {
            "text": [" ".join(maker.choices(words, k=8)) for _ in range(20_000)],
            "few": maker.choices(["open", "shipped"], k=20_000),
        }
    )
    found = choose(rows, options, delta=delta)
    assert found.levels == ({"text": 2} if higher else {})
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, rows.schema, **{**options, **found.writer_options(rows.schema)}) as writer:
        writer.write_table(rows)
    assert pq.read_table(pa.BufferReader(sink.getvalue())).equals(rows)


@pytest.mark.parametrize("options", [{"compression": "zstd"}, {"compression": "zstd", "compression_level": 1}])
def test_numbers_are_compressed_faster_where_that_costs_no_bytes(options: dict[str, Any]) -> None:
    maker = random.Random(1)
    rows = pa.table(
        {
            "wide": [maker.randrange(10**6) for _ in range(20_000)],  # the upper bytes repeat, the lower are noise
            "near": [n // 2 * 3 + maker.randrange(3) for n in range(20_000)],  # all bytes repeat
        }
    )
    found = choose(rows, options, delta=False)
    assert found.plain == {"wide", "near"}
    assert found.levels == ({} if "compression_level" in options else {"wide": -2, "near": 2})
    sizes = []
    for chosen in (found.writer_options(rows.schema), {"use_dictionary": False}):
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, **{**options, **chosen})
        sizes.append(sink.getvalue().size)
    assert sizes[0] <= sizes[1]


def test_an_unknown_value_of_the_property_is_named(tmp_path: Path) -> None:
    table = enough_rows(tmp_path, **{"floe.parquet-encodings": "delta2"})
    with pytest.raises(ConfigurationError, match=r"floe\.parquet-encodings='delta2'.*compatible or delta"):
        rewrite(table)


def test_row_group_size_and_bloom_filters_are_the_tables(tmp_path: Path) -> None:
    table = small_files(
        lake(tmp_path),
        6,
        rows_each=400,
        properties={
            "write.parquet.row-group-size-bytes": "20000",
            "write.parquet.bloom-filter-enabled.column.text": "true",
            "write.parquet.bloom-filter-enabled.column.gone": "true",
            "write.parquet.bloom-filter-max-bytes": "4096",
        },
    )
    before = rows_digest(table)
    rewrite(table)
    path = local_path(data_files(table)[0].file_path)
    assert pq.read_metadata(path).num_row_groups > 1
    probe = "SELECT bloom_filter_excludes FROM parquet_bloom_probe(?, 'text', ?)"

    def excluded(text: str) -> list[bool]:
        return [row[0] for row in duckdb.execute(probe, [str(path), text]).fetchall()]

    assert not all(excluded("text of row 7"))
    assert all(excluded("no such text"))
    assert rows_digest(table) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("write.parquet.row-group-size-bytes", "many"),
        ("write.parquet.bloom-filter-max-bytes", "-1"),
        ("write.parquet.bloom-filter-fpp.column.text", "2"),
    ],
)
def test_a_property_that_cannot_be_is_named(tmp_path: Path, name: str, value: str) -> None:
    properties = {"write.parquet.bloom-filter-enabled.column.text": "true", name: value}
    table = small_files(lake(tmp_path), 2, properties=properties)
    with pytest.raises(ConfigurationError, match=name):
        rewrite(table)
