"""Files read in the types that rows are to have, where their columns are the same, and as they are where not."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_floe.engines.local.typed_footers import TypedFooters, decimals, narrow


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


def read(footers: TypedFooters, file: pa.Buffer) -> tuple[pa.Table, bool]:
    footer, typed = footers.read(pa.BufferReader(file), file.size)
    return pq.ParquetFile(pa.BufferReader(file), metadata=footer).read(), typed


def by_a_mistrusted_writer(file: pa.Buffer) -> pa.Buffer:
    mine = pq.read_metadata(pa.BufferReader(file)).created_by.encode()
    theirs = b"parquet-mr version 1.2.8".ljust(len(mine))
    return pa.py_buffer(file.to_pybytes().replace(mine, theirs))


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
    assert put_on(by_a_mistrusted_writer(parquet(ROWS))) is None


def test_nested_columns_keep_a_file_as_it_is() -> None:
    nested = pa.schema([with_id(1, "prices", pa.list_(with_id(2, "element", pa.decimal128(18, 2))))])
    footer = pq.read_metadata(pa.BufferReader(parquet(nested.empty_table())))
    assert TypedFooters([nested]).put_on(footer) is None


BYTES = [pa.binary(4), pa.binary(8), pa.decimal128(30, 0), pa.large_string()]


@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize("store_schema", [False, True])
def test_decimals_that_are_stored_as_bytes_are_read_as_such_from_a_writers_second_file_on(
    dictionary: bool, store_schema: bool
) -> None:
    file = parquet(ROWS, use_dictionary=dictionary, store_schema=store_schema)
    footers = TypedFooters([WANTED])
    first, typed = read(footers, file)
    assert (first.schema.types, typed) == (WANTED.types, True)
    second, typed = read(footers, file)
    assert (second.schema.types, typed) == (BYTES, True)
    for number, field in enumerate(list(WANTED)[:2]):
        found = pa.chunked_array([decimals(chunk, field.type) for chunk in second.column(number).chunks])
        found.validate(full=True)
        assert found.equals(first.column(number))
    assert second.select([2, 3]).to_pydict() == ROWS.select([2, 3]).to_pydict()


def test_decimals_that_are_stored_as_integers_are_always_read_as_decimals() -> None:
    footers = TypedFooters([WANTED])
    for as_integer in (False, False, True, True):
        found, typed = read(footers, parquet(ROWS, store_decimal_as_integer=as_integer))
    assert (found.schema.types, typed) == (WANTED.types, True)


@pytest.mark.parametrize("other", [pa.decimal128(18, 3), pa.decimal128(17, 2), pa.binary(8)], ids=str)
def test_columns_of_as_many_bytes_that_are_something_else_are_not_taken_for_the_decimals(other: pa.DataType) -> None:
    footers = TypedFooters([WANTED])
    for _ in range(2):
        read(footers, parquet(ROWS))
    columns = COLUMNS.set(1, COLUMNS.field(1).with_type(other))
    for _ in range(2):
        found, typed = read(footers, parquet(columns.empty_table()))
        assert (found.schema.types, typed) == (columns.types, False)


def test_a_writer_that_readers_mistrust_is_known_as_such_in_its_second_file_too() -> None:
    footers = TypedFooters([WANTED])
    file = parquet(ROWS)
    for _ in range(2):
        read(footers, file)
    for _ in range(2):
        found, typed = read(footers, by_a_mistrusted_writer(file))
        assert (found.schema.types, typed) == (COLUMNS.types, False)


def test_a_footer_that_is_encoded_in_another_way_is_read_without_a_short_cut() -> None:
    file = parquet(ROWS).to_pybytes()
    start = len(file) - 8 - int.from_bytes(file[-8:-4], "little")
    assert file[start] == 0x15  # field 1, an integer; now the number has a byte of its own
    footer = b"\x05\x02" + file[start + 1 : -8]
    other = pa.py_buffer(file[:start] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    footers = TypedFooters([WANTED])
    for _ in range(3):
        found, typed = read(footers, other)
        assert (found.schema.types, typed) == (WANTED.types, True)
        assert found.to_pydict() == ROWS.to_pydict()


def test_a_file_of_another_size_than_its_manifest_says_is_left_to_pyarrow() -> None:
    file = parquet(ROWS)
    footer, typed = TypedFooters([WANTED]).read(pa.BufferReader(file), file.size + 1)
    assert (footer.num_rows, typed) == (ROWS.num_rows, False)


@st.composite
def columns(draw: st.DrawFn) -> pa.Array:
    digits = draw(st.integers(1, 18))
    scale = draw(st.integers(0, digits))
    most = 10**digits - 1
    values = draw(st.lists(st.none() | st.integers(-most, most) | st.sampled_from([-most, -1, 0, 1, most])))
    return pa.array(
        [None if value is None else Decimal(value).scaleb(-scale) for value in values], pa.decimal128(digits, scale)
    )


@given(columns(), st.data())
def test_decimals_by_their_bytes_are_the_decimals(column: pa.Array, data: st.DataObject) -> None:
    schema = pa.schema([with_id(1, "n", narrow(column.type))])
    file = parquet(pa.table({"n": column}, schema=pa.schema([with_id(1, "n", column.type)])))
    footers = TypedFooters([schema])
    read(footers, file)
    found = read(footers, file)[0].column(0).combine_chunks()
    assert pa.types.is_fixed_size_binary(found.type)
    first = data.draw(st.integers(0, len(column)))
    last = data.draw(st.integers(first, len(column)))
    made = decimals(found[first:last], schema.types[0])
    made.validate(full=True)
    assert made.type == schema.types[0]
    assert made.to_pylist() == column[first:last].to_pylist()
