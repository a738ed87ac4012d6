"""Consecutive members of a sequence in lots of bounded size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt


def lots(sizes: npt.NDArray[Any], most: float, most_members: int | None = None) -> Iterator[range]:
    """The numbers of the members of each lot, whose sizes have a bounded sum unless it is a single member.

    :param sizes: of the members.
    :param most_members: of a lot, at least one; default: any number.
    """
    reached = np.cumsum(sizes)
    begin, done = 0, 0
    while begin < len(sizes):
        end = max(begin + 1, int(np.searchsorted(reached, done + most, side="right")))
        if most_members is not None:
            end = min(end, begin + max(1, most_members))
        yield range(begin, end)
        begin, done = end, int(reached[end - 1])
