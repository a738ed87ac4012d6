"""Footers taken apart and put together: nothing is lost, nothing hostile gets through as something else."""

from __future__ import annotations

import io
import struct
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_floe.engines.local.parquet_footer import (
    MAGIC,
    NUM_ROWS,
    ROW_GROUPS,
    TAIL_BYTES,
    closing,
    moved_group,
    parse_tail,
    row_groups,
)
from airflow_provider_floe.engines.local.thrift import (
    BINARY,
    BYTE,
    DOUBLE,
    FALSE,
    I16,
    I32,
    I64,
    LIST,
    STRUCT,
    TRUE,
    FooterError,
    Struct,
    decode,
    encode,
)

INTEGERS = {I16: 15, I32: 31, I64: 63}


def values(kind: int, structs: st.SearchStrategy[Struct]) -> st.SearchStrategy[Any]:
    if kind in INTEGERS:
        return st.integers(-(2 ** INTEGERS[kind]), 2 ** INTEGERS[kind] - 1)
    return {
        BINARY: st.binary(max_size=20),
        DOUBLE: st.binary(min_size=8, max_size=8),
        BYTE: st.integers(0, 255),
        STRUCT: structs,
    }[kind]


def fields(structs: st.SearchStrategy[Struct]) -> st.SearchStrategy[tuple[int, Any]]:
    plain = st.sampled_from((I16, I32, I64, BINARY, DOUBLE, BYTE, STRUCT)).flatmap(
        lambda kind: st.tuples(st.just(kind), values(kind, structs))
    )
    lists = st.sampled_from((I32, I64, BINARY, STRUCT)).flatmap(
        lambda kind: st.tuples(st.just(kind), st.lists(values(kind, structs), max_size=20))
    )
    flags = st.booleans().map(lambda flag: (TRUE if flag else FALSE, flag))
    flag_lists = st.lists(st.sampled_from((1, 2)), max_size=20).map(lambda items: (TRUE, items))
    return st.one_of(plain, flags, st.one_of(lists, flag_lists).map(lambda items: (LIST, items)))


def structures() -> st.SearchStrategy[Struct]:
    empty: st.SearchStrategy[Struct] = st.just({})
    return st.recursive(
        empty, lambda inner: st.dictionaries(st.integers(1, 2000), fields(inner), max_size=6), max_leaves=12
    )


@given(structures())
def test_every_structure_comes_back(made: Struct) -> None:
    encoded = encode(made)
    assert decode(encoded) == (made, len(encoded))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_structure_or_refused(data: bytes) -> None:
    try:
        found, end = decode(data)
    except FooterError:
        return
    assert decode(encode(found))[0] == found
    assert end <= len(data)


@given(structures(), st.data())
def test_a_cut_off_structure_is_refused(made: Struct, data: st.DataObject) -> None:
    encoded = encode(made)
    with pytest.raises(FooterError):
        decode(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


@pytest.mark.parametrize(
    ("hostile", "why"),
    [
        (b"\x1c" * 100, "nested deeper"),
        (b"\x19" + b"\x19" * 100, "nested deeper"),
        (b"\x19\xfc\xff\xff\xff\xff\x0f", "more than fit"),
        (b"\x18\xff\xff\xff\xff\x0fabc", "in the midst"),
        (b"\x16" + b"\xff" * 12, "longer than 64 bits"),
        (b"\x16\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x00", "longer than 64 bits"),
        (b"\x1b\x00\x00", "does not use"),
        (b"\x15\x02\x05\x02\x02\x00", "twice"),
    ],
)
def test_hostile_footers_are_refused_at_once(hostile: bytes, why: str) -> None:
    with pytest.raises(FooterError, match=why):
        decode(hostile)


def written(rows: pa.Table, **options: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(rows, stream, **options)
    return stream.getvalue()


def footer_of(file: bytes) -> tuple[Struct, int]:
    length = parse_tail(file[-TAIL_BYTES:])
    start = len(file) - TAIL_BYTES - length
    found, end = decode(file[start:-TAIL_BYTES])
    assert end == length
    return found, start


COLUMNS = st.one_of(
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=40).map(
        lambda v: pa.array(v, pa.int64())
    ),
    st.lists(st.none() | st.text(max_size=30), min_size=1, max_size=40).map(lambda v: pa.array(v, pa.string())),
    st.lists(st.none() | st.floats(), min_size=1, max_size=40).map(lambda v: pa.array(v, pa.float64())),
    st.lists(st.none() | st.booleans(), min_size=1, max_size=40).map(lambda v: pa.array(v, pa.bool_())),
    st.lists(st.none() | st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=40).map(
        lambda v: pa.array(v, pa.list_(pa.int32()))
    ),
)


@given(
    st.lists(COLUMNS, min_size=1, max_size=4),
    st.sampled_from(("none", "snappy", "zstd", "gzip")),
    st.integers(1, 40),
    st.booleans(),
    st.integers(0, 10_000),
)
def test_footers_of_pyarrow_come_back_byte_by_byte_and_moved_ones_read_as_moved(
    columns: list[pa.Array], codec: str, group: int, index: bool, place: int
) -> None:
    length = min(map(len, columns))
    rows = pa.table({f"c{number}": column[:length] for number, column in enumerate(columns)})
    file = written(rows, compression=codec, row_group_size=group, write_page_index=index)
    footer, start = footer_of(file)
    assert closing(footer) == file[start:]
    groups = row_groups(footer, start)
    theirs = pq.read_metadata(io.BytesIO(file))
    assert [one.rows for one in groups] == [theirs.row_group(n).num_rows for n in range(theirs.num_row_groups)]
    number = place % len(groups)
    data = b"x" * place + file[groups[number].start : groups[number].end]
    moved = moved_group(groups[number], len(MAGIC) + place, 0)
    copy = footer | {NUM_ROWS: (I64, groups[number].rows), ROW_GROUPS: (LIST, (STRUCT, [moved]))}
    found = pq.read_table(io.BytesIO(MAGIC + data + closing(copy)))
    first = sum(one.rows for one in groups[:number])
    wanted = rows.slice(first, groups[number].rows)
    assert repr(found.to_pylist()) == repr(wanted.to_pylist())  # NaN is NaN there


def test_row_groups_that_lie_are_refused() -> None:
    file = written(pa.table({"a": list(range(100)), "b": list(range(100))}), row_group_size=50)
    footer, start = footer_of(file)

    def damaged(group: int, column: int, field_id: int, value: int) -> Struct:
        found = decode(encode(footer))[0]
        found[ROW_GROUPS][1][1][group][1][1][1][column][3][1][field_id] = (I64, value)
        return found

    data_page, size, dictionary = 9, 7, 11
    for bad, why in (
        (damaged(1, 1, size, 10**9), "beyond the footer|overlap"),
        (damaged(0, 1, size, -5), "size of"),
        (damaged(0, 0, dictionary, 1), "begins at"),
        (damaged(1, 0, dictionary, 4), "overlap|together"),
        (damaged(0, 0, data_page, -7) | {}, "begins at"),
        (footer | {NUM_ROWS: (I64, 99)}, "counts 99 rows"),
        (footer | {NUM_ROWS: (BINARY, b"9")}, "has type 8"),
        (footer | {8: (STRUCT, {})}, "encrypted"),
    ):
        with pytest.raises(FooterError, match=why):
            row_groups(bad, start)


@pytest.mark.parametrize("tail", [b"", b"PAR1", struct.pack("<I", 9) + b"PARE", struct.pack("<I", 9) + b"AVRO"])
def test_what_is_no_plain_parquet_file_is_refused(tail: bytes) -> None:
    with pytest.raises(FooterError):
        parse_tail(tail)
