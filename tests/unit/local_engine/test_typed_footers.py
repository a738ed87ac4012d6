"""Files read in the types that rows are to have, where their columns are the same, and as they are where not."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_floe.engines.local.typed_footers import TypedFooters, narrow


def with_id(number: int, name: str, kind: pa.DataType, nullable: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable, {"PARQUET:field_id": str(number)})


COLUMNS = pa.schema(
    [
        with_id(1, "small", pa.decimal128(9, 4)),
        with_id(2, "price", pa.decimal128(18, 2)),
        with_id(3, "huge", pa.decimal128(30, 0)),
        with_id(4, "text", pa.string()),
    ]
)
WANTED = pa.schema(
    [
        *(field.with_type(narrow(field.type)) for field in list(COLUMNS)[:3]),
        COLUMNS.field(3).with_type(pa.large_string()),
    ]
)
LARGEST = Decimal("9999999999999999.99")
ROWS = pa.table(
    {
        "small": [Decimal("0.0001"), None, Decimal("-99999.9999"), Decimal(0)] * 50,
        "price": [LARGEST, -LARGEST, Decimal("-0.01"), None] * 50,
        "huge": [Decimal(10**29), None, Decimal(-1), Decimal(10**18)] * 50,
        "text": ["", None, "b", "a longer text"] * 50,
    },
    schema=COLUMNS,
)


def parquet(rows: pa.Table, **options: Any) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, row_group_size=70, **options)
    return sink.getvalue()


def put_on(file: pa.Buffer) -> pq.FileMetaData | None:
    return TypedFooters([WANTED]).put_on(pq.read_metadata(pa.BufferReader(file)))


def test_only_decimals_of_few_digits_become_narrow() -> None:
    assert WANTED.types == [pa.decimal32(9, 4), pa.decimal64(18, 2), pa.decimal128(30, 0), pa.large_string()]
    assert narrow(pa.decimal128(19, 0)) == pa.decimal128(19, 0)
    assert narrow(pa.int64()) == pa.int64()


@pytest.mark.parametrize("as_integer", [False, True])
@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize("store_schema", [False, True])
def test_values_come_in_the_wanted_types_however_they_are_stored(
    as_integer: bool, dictionary: bool, store_schema: bool
) -> None:
    options = {"store_decimal_as_integer": as_integer, "use_dictionary": dictionary, "store_schema": store_schema}
    file = parquet(ROWS, **options)
    typed = put_on(file)
    assert typed is not None
    found = pq.ParquetFile(pa.BufferReader(file), metadata=typed).read()
    assert found.schema.equals(WANTED, check_metadata=True)
    assert found.to_pydict() == ROWS.to_pydict()


@pytest.mark.parametrize(
    "other",
    [
        with_id(2, "price", pa.decimal128(18, 3)),
        with_id(2, "price", pa.decimal128(17, 2)),
        with_id(2, "price", pa.int64()),
        with_id(2, "cost", pa.decimal128(18, 2)),
        with_id(9, "price", pa.decimal128(18, 2)),
        with_id(2, "price", pa.decimal128(18, 2), nullable=False),
        pa.field("price", pa.decimal128(18, 2)),
    ],
    ids=str,
)
def test_a_file_of_other_columns_is_left_alone(other: pa.Field) -> None:
    assert put_on(parquet(COLUMNS.set(1, other).empty_table())) is None
    assert put_on(parquet(pa.schema(reversed(list(COLUMNS))).empty_table())) is None
    assert put_on(parquet(pa.schema(list(COLUMNS)[:3]).empty_table())) is None


def test_a_file_of_a_writer_that_readers_mistrust_is_left_alone() -> None:
    assert put_on(parquet(ROWS)) is not None
    bytes_ = parquet(ROWS).to_pybytes()
    mine = pq.read_metadata(pa.BufferReader(bytes_)).created_by.encode()
    theirs = b"parquet-mr version 1.2.8".ljust(len(mine))
    assert put_on(pa.py_buffer(bytes_.replace(mine, theirs))) is None


def test_nested_columns_keep_a_file_as_it_is() -> None:
    nested = pa.schema([with_id(1, "prices", pa.list_(with_id(2, "element", pa.decimal128(18, 2))))])
    footer = pq.read_metadata(pa.BufferReader(parquet(nested.empty_table())))
    assert TypedFooters([nested]).put_on(footer) is None
