"""Rows set aside on disk, of which a few are wanted back."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import pyarrow as pa


class SpilledRows:
    """Record batches in an Arrow file, written by a thread of its own while the next one is made.

    :param path: file that does not exist yet.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writer = pa.ipc.new_file(str(path), schema, options=options)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="floe-spill")
        self._writing: Future[None] | None = None
        self._ends: list[int] = []
        self._closed = False

    def add(self, batch: pa.RecordBatch) -> None:
        """Set rows aside. They are numbered from 0 in the order in which they come."""
        self._wait()
        self._writing = self._pool.submit(self._writer.write_batch, batch)
        self._ends.append((self._ends[-1] if self._ends else 0) + len(batch))

    def close(self) -> None:
        """Take no more rows."""
        if not self._closed:
            self._closed = True
            try:
                self._wait()
            finally:
                self._pool.shutdown()
                self._writer.close()

    def rows(self, numbers: Iterator[int]) -> Iterator[pa.RecordBatch]:
        """Rows by their ascending numbers, a batch of the file at a time."""
        self.close()
        with pa.memory_map(str(self._path)) as source:
            reader = pa.ipc.open_file(source)
            for batch, inside in groupby(numbers, key=lambda number: bisect_right(self._ends, number)):
                first = self._ends[batch - 1] if batch else 0
                yield reader.get_batch(batch).take(pa.array([number - first for number in inside], pa.int64()))

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None
