"""Which combinations of features a run of the tests takes."""

from __future__ import annotations

from itertools import islice

import pytest
from harness.feature_tables import DIMENSIONS, possible
from harness.pairwise import cross_product, pairwise


def parametrize(metafunc: pytest.Metafunc, most: int | None = None) -> None:
    """Run a test on each pair of features; with ``--full-matrix`` on each combination, or on one share of them.

    :param most: take so many only, those that hold most pairs, where the matrix is not full.
    """
    if "combination" not in metafunc.fixturenames:
        return
    if metafunc.config.getoption("full_matrix"):
        share, shares = map(int, metafunc.config.getoption("matrix_shard").split("/"))
        assert 1 <= share <= shares, "a shard is given as 1/8, the first of eight"
        # every n-th, so that each share has some of everything
        chosen = islice(cross_product(DIMENSIONS, possible), share - 1, None, shares)
    else:
        chosen = islice(pairwise(DIMENSIONS, possible), most)
    combinations = list(chosen)
    metafunc.parametrize("combination", combinations, ids=["-".join(one.values()) for one in combinations])
