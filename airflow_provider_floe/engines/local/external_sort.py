"""Sorts rows within a bound of memory: what does not fit is spread over files by ranges of the key, each then sorted.

A row's columns are moved once where all rows fit into memory, else twice. Rows that compare equal stay as they come.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from airflow_provider_floe.engines.local.duck_sort import sorted_by_duckdb
from airflow_provider_floe.engines.local.reader import BATCH_ROWS
from airflow_provider_floe.engines.local.sort_keys import CoarseKey, SortTerm, order_of

MOST_BUCKETS = 256
"""Files that are open at a time."""
_MOST_SPLITS = 4
_SAMPLE_ROWS = 100_000
_KEY_BYTES = 32
"""What words and positions of a row take while it is sorted."""
_MOST_AT_ONCE = 1024**3
"""Arrow's text has offsets of 32 bits in some files."""


@dataclass
class _Bucket:
    """Rows of one range of the key, in a file of their own.

    :ivar size: bytes that its rows take in memory, with their keys.
    :ivar equal: all its rows compare equal.
    """

    path: Path
    equal: bool
    size: int = 0
    rows: int = 0
    pending: list[pa.RecordBatch] = field(default_factory=list)
    writer: Any = None

    def flush(self) -> None:
        if self.pending:
            rows = pa.concat_batches(self.pending)
            self.pending.clear()
            if self.writer is None:
                self.writer = pa.ipc.new_stream(str(self.path), rows.schema)
            self.writer.write_batch(rows)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()

    def read(self) -> Iterator[pa.RecordBatch]:
        with pa.memory_map(str(self.path)) as source:
            yield from pa.ipc.open_stream(source)


class ExternalSort:
    """Sorts by terms within a bound of memory.

    :param sample: gives a sample of all rows, a column for each term; asked for when not all rows fit into memory.
    :param expected_rows: about so many come.
    :param memory_bytes: what rows and keys take, but for single batches.
    """

    def __init__(
        self,
        terms: Sequence[SortTerm],
        sample: Callable[[], Sequence[Any]],
        expected_rows: int,
        memory_bytes: int,
    ) -> None:
        self._terms = terms
        self._sample = sample
        self._expected_rows = expected_rows
        self._memory = memory_bytes
        self._at_once = min(memory_bytes // 2, _MOST_AT_ONCE)

    def rows(self, incoming: Iterator[pa.RecordBatch]) -> Generator[pa.RecordBatch]:
        """The rows in their order. What the input raises is raised as it is."""
        held: list[pa.RecordBatch] = []
        size = count = 0
        for batch in incoming:
            held.append(batch)
            size += _size(batch)
            count += batch.num_rows
            if size > self._at_once:
                break
        else:
            yield from self._in_memory(held)
            return
        with tempfile.TemporaryDirectory(prefix="floe-spill-") as folder:
            expected = max(size, size * self._expected_rows // max(1, count))
            buckets = self._spread(chain(_emptied(held), incoming), self._sample(), expected, Path(folder))
            yield from self._given(buckets, 1)

    def _in_memory(self, batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        if not batches:
            return
        schema = batches[0].schema
        chunks = [[batch.column(number) for batch in batches] for number in range(len(schema))]
        batches.clear()
        columns = []
        for parts in chunks:
            columns.append(parts[0] if len(parts) == 1 else pa.concat_arrays(parts))
            parts.clear()
        order = order_of([columns[schema.get_field_index(term.column)] for term in self._terms], self._terms)
        for start in range(0, len(order), BATCH_ROWS):
            chosen = pa.array(order[start : start + BATCH_ROWS])
            yield pa.RecordBatch.from_arrays([column.take(chosen) for column in columns], schema=schema)

    def _spread(
        self, rows: Iterable[pa.RecordBatch], sample: Sequence[Any], expected_bytes: int, folder: Path
    ) -> list[_Bucket]:
        """All rows in files, one for each range of the key, in the order of the ranges."""
        key = CoarseKey(sample, self._terms)
        bounds, equal = _bounds(key, sample, min(MOST_BUCKETS // 2, 1 + expected_bytes * 8 // self._memory))
        buckets = [_Bucket(folder / f"{number}.arrow", one) for number, one in enumerate(equal)]
        with ExitStack() as closing:
            for bucket in buckets:
                closing.callback(bucket.close)
            pending = 0
            for batch in rows:
                numbers = np.searchsorted(bounds, key.of(self._columns(batch)), side="right").astype(np.uint16)
                together = batch.take(pa.array(np.argsort(numbers, kind="stable")))
                size = _size(together)
                start = 0
                for number, count in enumerate(np.bincount(numbers).tolist()):
                    if count:
                        buckets[number].pending.append(together.slice(start, count))
                        buckets[number].size += size * count // len(numbers)
                        buckets[number].rows += count
                        start += count
                pending += size
                if pending > self._at_once:
                    for bucket in buckets:
                        bucket.flush()
                    pending = 0
            for bucket in buckets:
                bucket.flush()
        return [bucket for bucket in buckets if bucket.rows]

    def _given(self, buckets: Sequence[_Bucket], splits: int) -> Iterator[pa.RecordBatch]:
        for bucket in buckets:
            if bucket.equal:
                for batch in bucket.read():
                    for start in range(0, batch.num_rows, BATCH_ROWS):
                        yield batch.slice(start, BATCH_ROWS)
            elif bucket.size <= self._memory // 3:
                yield from self._in_memory(list(bucket.read()))
            else:
                yield from self._split(bucket, splits)
            bucket.path.unlink()

    def _split(self, bucket: _Bucket, splits: int) -> Iterator[pa.RecordBatch]:
        """The rows of a range that is too large, by ranges within it; by DuckDB where that leads nowhere."""
        sample = self._sample_of(bucket)
        key = CoarseKey(sample, self._terms)
        codes = key.of(sample)
        if splits >= _MOST_SPLITS or (codes.min() == codes.max() and not key.complete):
            yield from sorted_by_duckdb(bucket.read(), self._terms, self._memory)
            return
        folder = bucket.path.with_suffix("")
        folder.mkdir()
        yield from self._given(self._spread(bucket.read(), sample, bucket.size, folder), splits + 1)

    def _sample_of(self, bucket: _Bucket) -> Sequence[Any]:
        step = max(1, bucket.rows // _SAMPLE_ROWS)
        samples: list[list[Any]] = [[] for _ in self._terms]
        seen = 0
        for batch in bucket.read():
            chosen = pa.array(np.arange(-seen % step, batch.num_rows, step))
            seen += batch.num_rows
            for sample, column in zip(samples, self._columns(batch), strict=True):
                sample.append(column.take(chosen))
        return [pa.concat_arrays(parts) for parts in samples]

    def _columns(self, batch: pa.RecordBatch) -> list[Any]:
        return [batch.column(term.column) for term in self._terms]


def _bounds(key: CoarseKey, sample: Sequence[Any], ranges: int) -> tuple[Any, list[bool]]:
    """Where ranges of the key begin, but for the first, and of each range whether its rows compare equal.

    A key that many rows have gets a range of its own.
    """
    codes = np.sort(key.of(sample))
    if not len(codes):
        return codes, [False]
    places = np.linspace(0, len(codes), num=ranges + 1, endpoint=False, dtype=np.int64)[1:]
    values, counts = np.unique(codes[places], return_counts=True)
    frequent = values[counts > 1] if len(values) > 1 else values
    bounds = np.unique(np.concatenate([values, frequent + np.uint64(1)]))
    alone = np.isin(bounds[:-1], frequent) & (bounds[1:] == bounds[:-1] + np.uint64(1))
    return bounds, [False, *(bool(one) and key.complete for one in alone), False]


def _size(batch: pa.RecordBatch) -> int:
    return int(batch.nbytes) + _KEY_BYTES * int(batch.num_rows)


def _emptied(batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches from the first to the last; the list keeps none of those that were given."""
    batches.reverse()
    while batches:
        yield batches.pop()
