"""Keys as numbers have Iceberg's order of every type, in any direction, with NULL at either end, over many columns."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from sort_cases import expected_order, row_key, sorts

from airflow_provider_floe.engines.local.sort_keys import CoarseKey, SortTerm, order_of


@given(sorts())
def test_rows_come_in_the_order_of_the_definition(case: tuple[list[pa.Array], list[SortTerm]]) -> None:
    columns, terms = case
    assert order_of(columns, terms).tolist() == expected_order(columns, terms)


@given(sorts(), st.data())
def test_a_slice_of_a_column_is_sorted_like_a_column(
    case: tuple[list[pa.Array], list[SortTerm]], data: st.DataObject
) -> None:
    columns, terms = case
    start = data.draw(st.integers(0, len(columns[0]) - 1))
    parts = [column.slice(start) for column in columns]
    assert order_of(parts, terms).tolist() == expected_order(parts, terms)
    coarse = CoarseKey(parts, terms)
    assert coarse.of(columns)[start:].tolist() == coarse.of(parts).tolist()


@given(sorts(), st.data())
def test_a_coarse_key_never_contradicts_the_order_whatever_its_sample(
    case: tuple[list[pa.Array], list[SortTerm]], data: st.DataObject
) -> None:
    columns, terms = case
    length = len(columns[0])
    chosen = data.draw(st.lists(st.integers(0, length - 1), min_size=1, max_size=length, unique=True))
    coarse = CoarseKey([column.take(pa.array(chosen)) for column in columns], terms)
    keys = coarse.of(columns).tolist()
    ordered = [keys[row] for row in expected_order(columns, terms)]
    assert ordered == sorted(ordered)
    if coarse.complete:
        compare = row_key(columns, terms)
        for row in chosen:
            alike = [other for other in range(length) if keys[other] == keys[row]]
            assert all(compare(other) == compare(row) for other in alike)
