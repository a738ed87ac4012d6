"""Decimals that are read and written as narrow as their digits allow: what stands in the files does not change."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness.tables import create_table, data_files, lake, local_path
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.types import DecimalType, ListType, NestedField
from rewriting import rewrite

from airflow_provider_floe.engines.local import typed_footers
from airflow_provider_floe.engines.local.typed_footers import TypedFooters

DECIMALS = Schema(
    NestedField(1, "small", DecimalType(9, 4), required=False),
    NestedField(2, "price", DecimalType(18, 2), required=False),
    NestedField(3, "huge", DecimalType(30, 0), required=False),
)
NESTED = Schema(
    *DECIMALS.fields,
    NestedField(4, "prices", ListType(5, DecimalType(18, 2), element_required=False), required=False),
)
LARGEST = Decimal("9999999999999999.99")


@pytest.mark.parametrize("schema", [DECIMALS, NESTED], ids=["flat", "nested"])
def test_decimals_stay_what_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schema: Schema) -> None:
    files_typed = []
    read = TypedFooters.read

    def noted(self: TypedFooters, stream: Any, size: int) -> tuple[pq.FileMetaData, bool]:
        footer, typed = read(self, stream, size)
        files_typed.append(typed)
        return footer, typed

    monkeypatch.setattr(TypedFooters, "read", noted)
    table = create_table(lake(tmp_path), schema=schema)
    for number in range(4):
        rows: dict[str, list[Any]] = {
            "small": [Decimal(number), None, Decimal("-99999.9999"), Decimal("0.0001")] * 20,
            "price": [LARGEST, -LARGEST, Decimal("-0.01"), None] * 20,
            "huge": [Decimal(10**29 + number), None, Decimal(-1), Decimal(10**18)] * 20,
            "prices": [[LARGEST, None], [], None, [Decimal("-0.01")]] * 20,
        }
        arrow = schema_to_pyarrow(schema)
        made = pa.table([pa.array(rows[field.name], field.type) for field in arrow], schema=arrow)
        path = tmp_path / f"{number}.parquet"
        pq.write_table(made, path, row_group_size=30, store_decimal_as_integer=bool(number % 2))
        table.add_files([f"file://{path}"])
    before = contents(data_files(table))
    rewrite(table)
    written = data_files(table)
    assert len(written) == 1
    assert contents(written) == before
    columns = pq.ParquetFile(local_path(written[0].file_path)).schema
    assert [columns.column(number).physical_type for number in range(3)] == ["INT32", "INT64", "FIXED_LEN_BYTE_ARRAY"]
    assert pq.read_schema(local_path(written[0].file_path)).types[:3] == [
        pa.decimal128(9, 4),
        pa.decimal128(18, 2),
        pa.decimal128(30, 0),
    ]
    assert files_typed == [schema is DECIMALS] * 4
    assert dict(written[0].upper_bounds)[2] == int(LARGEST * 100).to_bytes(8, "big", signed=True)


def test_decimals_stay_wide_with_a_pyarrow_that_knows_no_narrow_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(typed_footers, "_KNOWS_NARROW", False)
    monkeypatch.delattr(pa, "decimal64")
    table = create_table(lake(tmp_path), schema=DECIMALS)
    arrow = schema_to_pyarrow(DECIMALS)
    for number in range(3):
        table.append(pa.table([pa.array([Decimal(number)], field.type) for field in arrow], schema=arrow))
    before = contents(data_files(table))
    rewrite(table)
    assert len(data_files(table)) == 1
    assert contents(data_files(table)) == before


def contents(files: list[Any]) -> object:
    paths = [str(local_path(file.file_path)) for file in files]
    return duckdb.execute("SELECT * FROM read_parquet(?) ORDER BY ALL", [paths]).fetchall()
