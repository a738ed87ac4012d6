"""Values of every primitive type, and Iceberg's order of them in plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Context, Decimal
from functools import cmp_to_key
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from airflow_provider_floe.engines.local.sort_keys import SortTerm

_TEXT = st.text(st.sampled_from("ab\0é\U0001f600\uffff"), max_size=12)
_ALIKE = st.builds("a long beginning of all, {}".format, _TEXT)


def _decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    most = 10**precision - 1
    return st.integers(-most, most).map(lambda number: Decimal(number).scaleb(-scale, Context(40)))


TYPES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "boolean": (pa.bool_(), st.booleans()),
    "int": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "long": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "few longs": (pa.int64(), st.integers(-2, 2)),
    "float": (pa.float32(), st.floats(width=32)),
    "double": (pa.float64(), st.floats() | st.sampled_from([-0.0, 0.0, math.nan, -math.nan])),
    "decimal": (pa.decimal128(9, 2), _decimals(9, 2)),
    "long decimal": (pa.decimal128(38, 10), _decimals(38, 10)),
    "date": (pa.date32(), st.dates()),
    "time": (pa.time64("us"), st.times()),
    "timestamp": (pa.timestamp("us"), st.datetimes()),
    "timestamp_ns": (pa.timestamp("ns", "UTC"), st.integers(-(2**62), 2**62)),
    "string": (pa.large_string(), _TEXT | _ALIKE),
    "strings alike": (pa.string(), _ALIKE),
    "binary": (pa.large_binary(), st.binary(max_size=12)),
    "fixed": (pa.binary(5), st.binary(min_size=5, max_size=5)),
    "long fixed": (pa.binary(20), st.binary(min_size=20, max_size=20)),
    "uuid": (pa.uuid(), st.binary(min_size=16, max_size=16)),
    "unknown": (pa.null(), st.none()),
}


@st.composite
def sorts(draw: st.DrawFn, most_rows: int = 40) -> tuple[list[pa.Array], list[SortTerm]]:
    """Columns of one to three types, and a term for each."""
    names = draw(st.lists(st.sampled_from(sorted(TYPES)), min_size=1, max_size=3))
    length = draw(st.integers(1, most_rows))
    columns, terms = [], []
    for number, name in enumerate(names):
        kind, values = TYPES[name]
        few = draw(st.lists(values, min_size=1, max_size=8))
        chosen = draw(st.lists(st.none() | st.sampled_from(few) | values, min_size=length, max_size=length))
        columns.append(pa.array(chosen, kind))
        terms.append(SortTerm(f"c{number}", draw(st.booleans()), draw(st.booleans())))
    return columns, terms


def expected_order(columns: Sequence[pa.Array], terms: Sequence[SortTerm]) -> list[int]:
    """By the definition: NULLs where they belong, NaN above all, -0.0 below 0.0, bytes unsigned; else as they come."""
    return sorted(range(len(columns[0])), key=row_key(columns, terms))


def row_key(columns: Sequence[pa.Array], terms: Sequence[SortTerm]) -> Any:
    values = [_plain(column) for column in columns]

    def compare(one: int, other: int) -> int:
        for column, term in zip(values, terms, strict=True):
            left, right = column[one], column[other]
            if (left is None) != (right is None):
                return -1 if (left is None) == term.nulls_first else 1
            if left != right:
                return -1 if (left < right) != term.descending else 1
        return 0

    return cmp_to_key(compare)


def _plain(column: pa.Array) -> list[Any]:
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return [_comparable(value) for value in column.to_pylist()]


def _comparable(value: Any) -> Any:
    if isinstance(value, float):
        return (1, 0.0, 0.0) if math.isnan(value) else (0, value, math.copysign(1, value))
    return value.encode() if isinstance(value, str) else value
