"""Sets of 64-bit hashes held against each other, on disk and in bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Hashes = np.ndarray[Any, np.dtype[np.uint64]]

_CHUNK = 1 << 20
_BYTES_AT_WORK = 32
"""Memory that holding a hash against others takes: both sorted, a place, and what sorting needs."""


class HashColumn:
    """Hashes in the order in which they came, in a file without a name, gone with this object or the process."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="floe-hashes-")  # noqa: SIM115
        self._count = 0

    def add(self, hashes: Hashes) -> None:
        """Add hashes behind those that are there."""
        self._file.write(hashes.tobytes())
        self._count += len(hashes)

    def __len__(self) -> int:
        return self._count

    def chunks(self) -> Iterator[Hashes]:
        """All of them, a bounded number at a time."""
        self._file.seek(0)
        while data := self._file.read(_CHUNK * 8):
            yield np.frombuffer(data, np.uint64)
        self._file.seek(0, 2)

    def numbers(self, wanted: Hashes) -> Iterator[int]:
        """The places of the hashes that are among some sorted ones, ascending."""
        first = 0
        for chunk in self.chunks() if len(wanted) else ():
            yield from (first + np.flatnonzero(_among(chunk, wanted))).tolist()
            first += len(chunk)


def only_in(columns: Sequence[HashColumn], others: Sequence[HashColumn], memory_bytes: int) -> Hashes:
    """Sorted, each once: the hashes in some columns that are in none of the others.

    :param memory_bytes: beyond it, the hashes are taken range by range, and read once for each.
    """
    total = sum(len(column) for column in (*columns, *others))
    parts = -(-total * _BYTES_AT_WORK // memory_bytes) or 1
    found = []
    for part in range(parts):
        first, last = ((1 << 64) * edge // parts for edge in (part, part + 1))
        hashes = _distinct(_between(columns, first, last))
        found.append(hashes[~_among(hashes, np.sort(_between(others, first, last)))])
    return np.concatenate(found)


def _between(columns: Sequence[HashColumn], first: int, last: int) -> Hashes:
    """The hashes from one on and before another."""
    if first == 0 and last == 1 << 64:
        chosen = [chunk for column in columns for chunk in column.chunks()]
    else:
        low, high = np.uint64(first), np.uint64(last - 1)
        chosen = [chunk[(chunk >= low) & (chunk <= high)] for column in columns for chunk in column.chunks()]
    return np.concatenate(chosen) if chosen else np.empty(0, np.uint64)


def _distinct(hashes: Hashes) -> Hashes:
    hashes = np.sort(hashes)
    return hashes[np.concatenate(([True], hashes[1:] != hashes[:-1]))] if len(hashes) else hashes


def _among(hashes: Hashes, ordered: Hashes) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of the hashes are among those that are sorted; fast when they are sorted too, or the others few."""
    if not len(ordered):
        return np.zeros(len(hashes), np.bool_)
    places = np.searchsorted(ordered, hashes)
    np.minimum(places, len(ordered) - 1, out=places)
    return ordered[places] == hashes
