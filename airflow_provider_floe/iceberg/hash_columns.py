"""Sets of 64-bit hashes held against each other, on disk and in bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Hashes = np.ndarray[Any, np.dtype[np.uint64]]

_CHUNK = 1 << 20
_MARK = np.uint64(1)
_BYTES_AT_WORK = 32
"""Memory that holding a hash against others takes at most: in pieces, in one, and in what comes of it."""


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

    def those(self, wanted: Hashes) -> Hashes:
        """Sorted, each once: those of some sorted hashes that are among these."""
        found = [chunk[_among(chunk, wanted)] & ~_MARK for chunk in self.chunks()] if len(wanted) else []
        return np.unique(np.concatenate(found)) if found else np.empty(0, np.uint64)

    def numbers(self, wanted: Hashes) -> Iterator[int]:
        """The places of the hashes that are among some sorted ones, ascending."""
        first = 0
        for chunk in self.chunks() if len(wanted) else ():
            yield from (first + np.flatnonzero(_among(chunk, wanted))).tolist()
            first += len(chunk)


def differences(
    columns: Sequence[HashColumn], others: Sequence[HashColumn], memory_bytes: int
) -> tuple[Hashes, Hashes]:
    """The hashes in some columns that are in none of the others, and the other way round; sorted, each once.

    The last bit of a hash does not count.

    :param memory_bytes: beyond it, the hashes are taken range by range, and read once for each.
    """
    total = sum(len(column) for column in (*columns, *others))
    parts = -(-total * _BYTES_AT_WORK // memory_bytes) or 1
    left, right = [], []
    for part in range(parts):
        first, last = ((1 << 64) * edge // parts & ~1 for edge in (part, part + 1))
        marked = np.concatenate([*_between(columns, first, last, 0), *_between(others, first, last, 1)])
        marked.sort()
        # of equal hashes, those of the columns stand first
        unlike = (marked[1:] ^ marked[:-1]) > 1
        of_others = (marked & _MARK).astype(np.bool_)
        left.append(marked[~of_others & np.append(unlike, True)[: len(marked)]])
        right.append(marked[of_others & np.append(True, unlike)[: len(marked)]] & ~_MARK)
    return np.concatenate(left), np.concatenate(right)


def _between(columns: Sequence[HashColumn], first: int, last: int, mark: int) -> Iterator[Hashes]:
    """The hashes from one on and before another, all with this last bit."""
    low, high = np.uint64(first), np.uint64(last - 1)
    yield np.empty(0, np.uint64)
    for column in columns:
        for chunk in column.chunks():
            if (first, last) != (0, 1 << 64):
                chunk = chunk[(chunk >= low) & (chunk <= high)]
            yield chunk & ~_MARK | np.uint64(mark)


def _among(hashes: Hashes, ordered: Hashes) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of the hashes are, but for their last bit, among those that are sorted; fast when these are few."""
    hashes = hashes & ~_MARK
    places = np.searchsorted(ordered, hashes)
    np.minimum(places, len(ordered) - 1, out=places)
    return np.equal(ordered[places], hashes)
