"""Few combinations that together hold every pair of values of any two dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, product

Combination = Mapping[str, str]


def cross_product(
    dimensions: Mapping[str, Sequence[str]], possible: Callable[[Combination], bool]
) -> Iterator[dict[str, str]]:
    """Every possible combination, in the order of the values."""
    for values in product(*dimensions.values()):
        combination = dict(zip(dimensions, values, strict=True))
        if possible(combination):
            yield combination


def pairwise(
    dimensions: Mapping[str, Sequence[str]], possible: Callable[[Combination], bool]
) -> Iterator[dict[str, str]]:
    """Greedily, the combinations that hold most pairs not yet held, until every pair that is possible is held.

    The same arguments give the same combinations.
    """
    candidates = [(one, pairs_of(one)) for one in cross_product(dimensions, possible)]
    wanted = {pair for _, pairs in candidates for pair in pairs}
    while wanted:
        best, pairs = max(candidates, key=lambda candidate: len(candidate[1] & wanted))
        wanted -= pairs
        yield best


def pairs_of(combination: Combination) -> set[tuple[tuple[str, str], ...]]:
    """The pairs of values that a combination holds."""
    return set(combinations(combination.items(), 2))
