from __future__ import annotations

import numpy as np
import pytest

from airflow_provider_floe.iceberg.lots import lots


@pytest.mark.parametrize(
    ("sizes", "most", "most_members", "expected"),
    [
        ([], 5, None, []),
        ([1, 2, 2, 1], 5, None, [3, 1]),
        ([9, 1, 9, 4, 1], 5, None, [1, 1, 1, 2]),
        ([1, 1, 1, 1, 1], 5, 2, [2, 2, 1]),
        ([1, 1], 5, 0, [1, 1]),
        ([0.5, 0.5, 0.25, 2.0], 1, None, [2, 1, 1]),
    ],
)
def test_lots_are_bounded_and_hold_all(
    sizes: list[float], most: int, most_members: int | None, expected: list[int]
) -> None:
    found = list(lots(np.array(sizes), most, most_members))
    assert [len(lot) for lot in found] == expected
    assert [number for lot in found for number in lot] == [*range(len(sizes))]
