"""Places rows on a z-order curve by quantiles of a sample, so that any ordered type takes part evenly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_floe.engines.local.sort_keys import first_words, storage

_KEY_BITS = 60
_MOST_BITS = 12
MOST_COLUMNS = _KEY_BITS // 2
_TABLE_VALUES = 2**21
"""Integers of a range up to this size are looked up in a table instead of searched."""


class ZCurve:
    """The curve through the values of some columns.

    :param samples: values of each column, an Arrow array.
    """

    def __init__(self, samples: Sequence[Any], bits: int | None = None) -> None:
        self._bits = bits or min(_MOST_BITS, _KEY_BITS // len(samples))
        # Spread over all bits: a column of few values must not lie in a corner of the curve.
        self._ranks = [_ranking(sample, 2**self._bits - 2) for sample in samples]
        # Where the bits of each rank of the last column lie; those of the columns before it lie one higher each.
        ranks = np.arange(2**self._bits, dtype=np.uint64)
        self._spread = np.zeros(2**self._bits, dtype=np.uint64)
        for bit in range(self._bits):
            self._spread |= ((ranks >> np.uint64(bit)) & np.uint64(1)) << np.uint64(bit * len(samples))

    def keys(self, columns: Sequence[Any]) -> pa.Array:
        """The place of each row: the bits of its quantiles, one column after the other; NULL comes first."""
        key = np.zeros(len(columns[0]), dtype=np.uint64)
        for number, (column, ranks) in enumerate(zip(columns, self._ranks, strict=True)):
            rank = ranks(column)
            if column.null_count:
                rank = np.where(column.is_null().to_numpy(zero_copy_only=False), 0, rank)
            key |= self._spread[rank] << np.uint64(len(columns) - 1 - number)
        return pa.array(key)


def _ranking(sample: Any, most: int) -> Callable[[Any], Any]:
    """Tells the ranks of values of a column, from 1 on; anything for NULL.

    :param most: ranks there may be.
    """
    sample = storage(sample).drop_null()
    words = first_words(sample)
    if words is None:
        ordered = sample.take(pc.sort_indices(sample))
        bounds = ordered.take(pa.array(_places(len(ordered), most))).unique()
        ranks = 1 + np.arange(len(bounds) + 1) * most // max(1, len(bounds))
        return lambda column: ranks[_before(storage(column), bounds)]
    words = np.sort(words)
    bounds = np.unique(words[_places(len(words), most)])
    ranks = 1 + np.arange(len(bounds) + 1) * most // max(1, len(bounds))
    if len(bounds) and int(bounds[-1] - bounds[0]) < _TABLE_VALUES:
        low, high = bounds[0], bounds[-1] + np.uint64(1)
        table = ranks[np.searchsorted(bounds, np.arange(low, high + np.uint64(1), dtype=np.uint64))].astype(np.uint16)
        return lambda column: table[np.clip(_words_of(column), low, high) - low]
    return lambda column: ranks[np.searchsorted(bounds, _words_of(column))]


def _words_of(column: Any) -> Any:
    words = first_words(storage(column))
    assert words is not None
    return words


def _places(values: int, most: int) -> Any:
    return np.linspace(0, values, num=most + 1, endpoint=False, dtype=np.int64)[1:] if values else np.zeros(0, np.int64)


def _before(column: Any, bounds: Any) -> Any:
    """How many of the bounds, texts or bytes, each value is greater than."""
    encoded = column.dictionary_encode()
    values = encoded.dictionary
    # Sorting is stable: a value stands before the bound that is equal to it.
    order = pc.sort_indices(pa.concat_arrays([values, bounds.cast(values.type)])).to_numpy()
    is_value = order < len(values)
    found = np.zeros(len(values) + 1, dtype=np.intp)
    found[order[is_value]] = np.cumsum(~is_value)[is_value]
    return found[pc.fill_null(encoded.indices, len(values)).to_numpy()]
