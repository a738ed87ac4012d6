"""Sort keys as unsigned numbers: Iceberg's order of every primitive type, so that rows are compared by integers.

A value becomes one or more *words*, unsigned 64-bit numbers that compare one after the other as the values do. NaN is
the largest, -0.0 comes before 0.0, text and binary compare by unsigned bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_BITS = 64
_SIGN = np.uint64(1 << 63)
_ALL = np.uint64(2**64 - 1)
_NAN = np.float64("nan")
_FIRST_BYTES = np.array([2**64 - 2 ** (64 - 8 * min(length, 7)) for length in range(9)], dtype=np.uint64)
"""Masks of the first bytes of a number, seven at the most."""
_DIGITS_OF_ONE_WORD = 18


@dataclass(frozen=True)
class SortTerm:
    """One column to sort by."""

    column: str
    descending: bool
    nulls_first: bool


def storage(column: Any) -> Any:
    """The column as it is stored, without an extension type such as UUID's."""
    return column.storage if isinstance(column.type, pa.BaseExtensionType) else column


def order_of(columns: Sequence[Any], terms: Sequence[SortTerm]) -> Any:
    """The positions of rows in their order; rows that compare equal stay as they come.

    :param columns: an Arrow array for each term.
    """
    words: list[_Word] = []
    for column, term in zip(columns, terms, strict=True):
        words += _words(storage(column), term, _ranks)
    return _order(words, len(columns[0]))


def first_words(column: Any) -> Any:
    """The first word of each value in ascending order, anything for NULL; None for text and binary.

    It is the only one but for UUIDs, binary and decimals of many digits.
    """
    return None if _long(column) else _ascending(column)[0]


def exact_columns(column: Any, term: SortTerm) -> list[tuple[Any, str]]:
    """The same order as columns that any engine compares alike, each with its direction."""
    column = storage(column)
    if _long(column):
        return [(_binary(column), "DESC" if term.descending else "ASC")]
    _, *words = _words(column, term, _ranks)
    return [(pa.array(word.values, mask=word.null), "ASC") for word in words]


class CoarseKey:
    """One number for each row that never contradicts the order: of two numbers the smaller belongs to the smaller row.

    Rows that compare differently may have the same number. The bits are those that make a difference in a sample.

    :ivar complete: rows that have the number of a row of the sample are equal to it.
    """

    def __init__(self, columns: Sequence[Any], terms: Sequence[SortTerm]) -> None:
        self._terms = terms
        self._prefixes = [_common_prefix(storage(column)) if _long(column) else b"" for column in columns]
        self.complete = True
        self._parts: list[_Part] = []
        room = _BITS
        for word in self._words(columns):
            self.complete &= word.vague is None or not word.vague.any()
            part = _Part.fit(*word.range(), room)
            if part is None:
                self.complete = False
                break
            self._parts.append(part)
            room = part.place
            if part.dropped:
                self.complete = False
                break

    def of(self, columns: Sequence[Any]) -> Any:
        """The number of each row."""
        key = np.zeros(len(columns[0]), dtype=np.uint64)
        outside = np.zeros(len(key), dtype=bool)
        # A value that the sample does not reach stands before or behind all of it, whatever the words after say; and
        # they say nothing of a text of which only the beginning is known.
        for part, word in zip(self._parts, self._words(columns), strict=False):
            slots, beyond = part.slots(word.values)
            if word.null is not None:
                slots[word.null] = 0
                beyond &= ~word.null
            slots[outside] = 0
            outside |= beyond if word.vague is None else beyond | word.vague
            key |= slots
        return key

    def _words(self, columns: Sequence[Any]) -> list[_Word]:
        words: list[_Word] = []
        for column, term, prefix in zip(columns, self._terms, self._prefixes, strict=True):
            words += _words(storage(column), term, partial(_after, prefix=prefix))
        return words


@dataclass(frozen=True)
class _Word:
    """A word of each row.

    :ivar null: rows whose value is NULL: they have no such word, and compare equal by it.
    :ivar vague: rows whose word is not all that there is of the value.
    """

    values: Any
    null: Any = None
    vague: Any = None

    def range(self) -> tuple[int, int]:
        values = self.values if self.null is None else self.values[~self.null]
        return (int(values.min()), int(values.max())) if len(values) else (0, 0)


@dataclass(frozen=True)
class _Part:
    """The bits of one word in a coarse key: a slot below all values of the sample, then theirs, then one above.

    :ivar dropped: low bits that are left out.
    :ivar place: of the lowest bit.
    """

    low: int
    high: int
    dropped: int
    place: int

    @classmethod
    def fit(cls, low: int, high: int, room: int) -> _Part | None:
        """None: there is no room that would tell anything."""
        dropped = 0
        while (bits := (((high - low) >> dropped) + 2).bit_length()) > room:
            dropped += 1
            if dropped == _BITS:
                return None
        return cls(low, high, dropped, room - bits)

    def slots(self, word: Any) -> tuple[Any, Any]:
        low, high = np.uint64(self.low), np.uint64(self.high)
        below, above = word < low, word > high
        slots = ((word - low) >> np.uint64(self.dropped)) + np.uint64(1)
        slots[below] = 0
        slots[above] = ((self.high - self.low) >> self.dropped) + 2
        return slots << np.uint64(self.place), below | above


def _order(words: Sequence[_Word], rows: int) -> Any:
    """By all words, packed into one number, in whose low bits the positions stand where there is room for them."""
    key, used = np.zeros(rows, dtype=np.uint64), 0
    for word in words:
        low, high = word.range()
        bits = (high - low).bit_length()
        if not bits:
            continue
        values = word.values - np.uint64(low)
        if word.null is not None:
            values[word.null] = 0
        if used + bits > _BITS:
            key, used = _dense(key)
            values, bits = _dense(values)
        key <<= np.uint64(bits)
        key |= values
        used += bits
    position_bits = max(0, rows - 1).bit_length()
    if used + position_bits > _BITS:
        return np.argsort(key, kind="stable")
    key <<= np.uint64(position_bits)
    key |= np.arange(rows, dtype=np.uint64)
    key.sort()
    key &= np.uint64((1 << position_bits) - 1)
    return key.view(np.int64)


def _dense(key: Any) -> tuple[Any, int]:
    values, ranks = np.unique(key, return_inverse=True)
    return ranks.astype(np.uint64), (len(values) - 1).bit_length()


def _words(column: Any, term: SortTerm, of_long: Callable[[Any], _Word]) -> list[_Word]:
    """Words of a column: first the one that puts NULLs in their place.

    :param of_long: makes the word of text and binary, which have no bound.
    """
    words = [of_long(column)] if _long(column) else list(map(_Word, _ascending(column)))
    if term.descending:
        words = [replace(word, values=~word.values) for word in words]
    if not column.null_count:
        places = np.broadcast_to(np.uint64(term.nulls_first), len(column))
        return [_Word(places), *words]
    null = column.is_null().to_numpy(zero_copy_only=False)
    for number, word in enumerate(words):
        words[number] = replace(word, null=null, vague=None if word.vague is None else word.vague & ~null)
    return [_Word((null != term.nulls_first).astype(np.uint64)), *words]


def _long(column: Any) -> bool:
    kind = storage(column).type
    if pa.types.is_fixed_size_binary(kind):
        return bool(kind.byte_width > 16)
    return any(
        test(kind)
        for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    )


def _ascending(column: Any) -> list[Any]:
    """Words of a type of fixed size; anything where there is NULL."""
    kind = column.type
    if pa.types.is_null(kind):
        return [np.zeros(len(column), dtype=np.uint64)]
    if pa.types.is_boolean(kind):
        return [_buffer(column.cast(pa.uint8()), "u1").astype(np.uint64)]
    if pa.types.is_unsigned_integer(kind):
        return [_buffer(column, f"u{kind.bit_width // 8}").astype(np.uint64)]
    if pa.types.is_floating(kind):
        return [_of_floats(_buffer(column, f"f{kind.bit_width // 8}").astype(np.float64))]
    if pa.types.is_decimal128(kind):
        halves = _buffer(column, "(2,)u8")
        low, high = halves[:, 0], halves[:, 1]
        return [low ^ _SIGN] if kind.precision <= _DIGITS_OF_ONE_WORD else [high ^ _SIGN, low]
    if pa.types.is_fixed_size_binary(kind):
        return _of_bytes(_buffer(column, f"({kind.byte_width},)u1"))
    return [_buffer(column, f"i{kind.bit_width // 8}").astype(np.int64).view(np.uint64) ^ _SIGN]


def _of_floats(values: Any) -> Any:
    bits = np.where(np.isnan(values), _NAN, values).view(np.uint64)
    return np.where(bits >> np.uint64(63), ~bits, bits | _SIGN)


def _of_bytes(values: Any) -> list[Any]:
    width = values.shape[1]
    padded = np.zeros((len(values), -(-width // 8) * 8), dtype=np.uint8)
    padded[:, :width] = values
    words = padded.view(">u8").astype(np.uint64)
    return [words[:, number] for number in range(words.shape[1])]


def _buffer(column: Any, dtype: str) -> Any:
    data = column.buffers()[1]
    if data is None or not len(column):
        return np.zeros(len(column), dtype=dtype)
    return np.frombuffer(data, dtype=dtype, count=column.offset + len(column))[column.offset :]


def _ranks(column: Any) -> _Word:
    """Each value's place among the distinct values."""
    encoded = column.dictionary_encode()
    places = pc.rank(encoded.dictionary, tiebreaker="dense").to_numpy()
    return _Word(np.append(places, 0)[pc.fill_null(encoded.indices, len(places)).to_numpy()].astype(np.uint64))


def _binary(column: Any) -> Any:
    return column.cast(pa.large_binary())


def _common_prefix(column: Any) -> bytes:
    found = pc.min_max(_binary(column)).as_py()
    low, high = found["min"] or b"", found["max"] or b""
    return bytes(
        low[: next((n for n, (one, other) in enumerate(zip(low, high, strict=False)) if one != other), len(low))]
    )


def _after(column: Any, prefix: bytes) -> _Word:
    """The seven bytes after the prefix and how many there are; values without it stand before or behind all others."""
    column = _binary(column)
    offsets = _buffer_of_offsets(column)
    lengths = np.clip(offsets[1:] - offsets[:-1] - len(prefix), 0, 8)
    data = column.buffers()[2]
    data = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]] if data is not None else np.zeros(0, np.uint8)
    data = np.concatenate([data, np.zeros(len(prefix) + 8, np.uint8)])
    windows = np.ndarray(len(data) - 7, dtype=">u8", buffer=data, strides=(1,))
    words = windows[offsets[:-1] - offsets[0] + len(prefix)].astype(np.uint64)
    words &= _FIRST_BYTES[lengths]
    words |= (lengths + 1).astype(np.uint64)
    vague = lengths == 8
    if prefix:
        without = ~_true(pc.equal(pc.binary_slice(column, 0, len(prefix)), pa.scalar(prefix, pa.large_binary())))
        below = _true(pc.less(column, pa.scalar(prefix, pa.large_binary())))
        words[without] = np.where(below[without], np.uint64(0), _ALL)
        vague |= without
    return _Word(words, vague=vague)


def _buffer_of_offsets(column: Any) -> Any:
    if not len(column):
        return np.zeros(1, dtype=np.int64)
    return np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column) + 1]


def _true(values: Any) -> Any:
    return pc.fill_null(values, False).to_numpy(zero_copy_only=False)
