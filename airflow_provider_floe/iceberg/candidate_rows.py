"""Columns of candidates, and a file that they are set aside in and come back from by partition."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from airflow_provider_floe.iceberg.lots import lots

Longs = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]

_ROW = np.dtype([("size", "<i8"), ("records", "<i8"), ("where", "<i8"), ("place", "<i4"), ("flags", "u1")])
_ROWS_AT_ONCE = 500_000


@dataclass(frozen=True)
class CandidateColumns:
    """What is known of some candidates, a value in each column for every one of them.

    :ivar size: bytes.
    :ivar records: rows.
    :ivar where: the number of the manifest, and behind 32 bits the place among its live files.
    :ivar place: number of the partition.
    :ivar flags: see :mod:`~airflow_provider_floe.iceberg.candidates`.
    """

    size: Longs
    records: Longs
    where: Longs
    place: Ints
    flags: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.place)

    def by_place(self) -> CandidateColumns:
        """The same by partition, those of one partition in their order."""
        if not np.any(self.place[1:] < self.place[:-1]):
            return self
        order = np.argsort(self.place, kind="stable")
        return CandidateColumns(**{one.name: getattr(self, one.name)[order] for one in fields(self)})


class SpilledCandidates:
    """Candidates on disk. Written as they come, then written once more by partition, to be read part by part."""

    def __init__(self) -> None:
        self._file = _nameless()
        self._counts = np.empty(0, np.int64)

    def add(self, columns: CandidateColumns) -> None:
        """Set candidates aside."""
        if not len(columns):
            return
        counts = np.bincount(columns.place, minlength=len(self._counts))
        counts[: len(self._counts)] += self._counts
        self._counts = counts
        self._file.write(_rows(columns).tobytes())

    def parts(self, most: int) -> Iterator[CandidateColumns]:
        """All candidates by partition, and at most so many at a time; see ``Candidates.parts``."""
        places = np.array([lot.start for lot in lots(self._counts, most)], np.int64)
        sizes = np.add.reduceat(self._counts, places)
        with self._by_part(places, sizes) as file:
            for size in sizes.tolist():
                for begin in range(0, size, most):
                    yield _read(file, min(most, size - begin)).by_place()

    def _by_part(self, places: Longs, sizes: Longs) -> IO[bytes]:
        """A file in which the candidates of each part stand together, at its begin; the first file is gone."""
        file = _nameless()
        ends = (np.cumsum(sizes) - sizes).tolist()
        self._file.seek(0)
        while data := self._file.read(_ROWS_AT_ONCE * _ROW.itemsize):
            rows = np.frombuffer(data, _ROW)
            part = np.searchsorted(places, rows["place"], side="right") - 1
            rows, part = rows[np.argsort(part, kind="stable")], np.sort(part)
            begins = np.concatenate(([0], np.flatnonzero(np.diff(part)) + 1)).tolist()
            for begin, end in zip(begins, [*begins[1:], len(rows)], strict=True):
                number = int(part[begin])
                file.seek(ends[number] * _ROW.itemsize)
                file.write(rows[begin:end].tobytes())
                ends[number] += end - begin
        self._file.close()
        file.seek(0)
        return file


def _nameless() -> IO[bytes]:
    """A file that is gone when it is closed, and with the process."""
    return tempfile.TemporaryFile(prefix="floe-candidates-")


def _rows(columns: CandidateColumns) -> npt.NDArray[Any]:
    rows = np.empty(len(columns), _ROW)
    for name in _ROW.names or ():
        rows[name] = getattr(columns, name)
    return rows


def _read(file: IO[bytes], count: int) -> CandidateColumns:
    rows = np.frombuffer(file.read(count * _ROW.itemsize), _ROW)
    return CandidateColumns(**{name: np.ascontiguousarray(rows[name]) for name in _ROW.names or ()})
