from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_floe.iceberg.hash_columns import HashColumn, differences

_HASHES = st.lists(st.one_of(st.integers(0, 40), st.integers(0, 2**64 - 1), st.just(2**64 - 1))).map(
    lambda found: [one & ~1 for one in found]
)


def column(hashes: list[int]) -> HashColumn:
    made = HashColumn()
    for one in (hashes[:2], hashes[2:]):
        made.add(np.array(one, np.uint64))
    return made


@pytest.mark.parametrize("memory", [1 << 30, 100])
@given(_HASHES, _HASHES, _HASHES)
def test_differences_are_those_of_sets(memory: int, some: list[int], more: list[int], others: list[int]) -> None:
    left, right = differences([column(some), column(more)], [column(others)], memory)
    assert left.tolist() == sorted({*some, *more} - set(others))
    assert right.tolist() == sorted(set(others) - {*some, *more})
    wanted = np.unique(np.array(others, np.uint64))
    assert list(column(some).numbers(wanted)) == [place for place, one in enumerate(some) if one in others]
    assert column(some).those(wanted).tolist() == sorted(set(some) & set(others))
