"""Which combinations of features a run of the tests takes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice
from random import Random

import pytest
from harness.feature_tables import DIMENSIONS, possible
from harness.pairwise import cross_product, pairwise


def parametrize(metafunc: pytest.Metafunc, most: int | None = None, also: Sequence[str] = ()) -> None:
    """Run a test on each pair of features; with ``--full-matrix`` on each combination, or on one share of them.

    :param most: take so many only, those that hold most pairs, where the matrix is not full.
    :param also: then take these too, each the values of the dimensions with blanks between.
    """
    if "combination" not in metafunc.fixturenames:
        return
    if metafunc.config.getoption("full_matrix"):
        share, shares = map(int, metafunc.config.getoption("matrix_shard").split("/"))
        assert 1 <= share <= shares, "a shard is given as 1/8, the first of eight"
        # in an order of chance, always the same, so that each share has some of everything
        every = list(cross_product(DIMENSIONS, possible))
        Random(0).shuffle(every)
        chosen = islice(every, share - 1, None, shares)
    else:
        named = (dict(zip(DIMENSIONS, one.split(), strict=True)) for one in also)
        chosen = chain(named, islice(pairwise(DIMENSIONS, possible), most))
    combinations = list(chosen)
    metafunc.parametrize("combination", combinations, ids=["-".join(one.values()) for one in combinations])
