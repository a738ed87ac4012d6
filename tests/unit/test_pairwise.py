"""The generator that chooses the table-feature matrix's cases."""

from __future__ import annotations

from collections.abc import Mapping

from harness.pairwise import cross_product, pairs_of, pairwise
from hypothesis import given
from hypothesis import strategies as st

VALUES = st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True)


@given(st.dictionaries(st.sampled_from("uvwxyz"), VALUES, min_size=2, max_size=4), st.sampled_from("abcd"))
def test_every_possible_pair_is_held_by_possible_combinations(dimensions: dict[str, list[str]], lonely: str) -> None:
    def possible(combination: Mapping[str, str]) -> bool:
        return list(combination.values()).count(lonely) < 2

    chosen = list(pairwise(dimensions, possible))
    everything = list(cross_product(dimensions, possible))
    assert all(one in everything for one in chosen)
    assert {pair for one in chosen for pair in pairs_of(one)} == {pair for one in everything for pair in pairs_of(one)}
    assert len(chosen) <= len(everything)
    assert chosen == list(pairwise(dimensions, possible))
