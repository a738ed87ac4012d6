"""The z-order curve: the bits of the columns' ranks one after the other, NULL first."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_floe.engines.local.z_curve import ZCurve

BITS = 4
VALUES = st.lists(st.none() | st.integers(0, 13), min_size=1, max_size=30)


@given(st.integers(1, 4).flatmap(lambda width: st.lists(VALUES, min_size=width, max_size=width)))
def test_keys_are_the_ranks_bit_by_bit(columns: list[list[int | None]]) -> None:
    length = min(map(len, columns))
    names = [f"c{number}" for number in range(len(columns))]
    batch = pa.record_batch([pa.array(column[:length], pa.int64()) for column in columns], names=names)
    sample = pa.array(range(2**BITS - 2))  # each value is a quantile of its own
    keys = ZCurve([sample] * len(columns), BITS).keys(batch.columns).to_pylist()
    for row, key in zip(batch.to_pylist(), keys, strict=True):
        ranks = [0 if value is None else value + 1 for value in row.values()]
        bits = [str(rank >> bit & 1) for bit in reversed(range(BITS)) for rank in ranks]
        assert key == int("".join(bits), 2)


def test_a_column_of_few_values_is_spread_over_the_whole_curve() -> None:
    batch = pa.record_batch([pa.array([0, 1, 1, 0])], names=["flag"])
    low, high = sorted(set(ZCurve([pa.array([0, 1])], BITS).keys(batch.columns).to_pylist()))
    assert high - low >= 2 ** (BITS - 1) - 1
