"""Lets reading run ahead of writing, within a bound of bytes: decoding in a thread, small objects fetched whole."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Queue
from threading import Condition, Thread
from typing import Any

import obstore
import pyarrow as pa
from pyiceberg.io import FileIO

from airflow_provider_floe.iceberg.files import LiveFile
from airflow_provider_floe.iceberg.object_stores import s3_store

log = logging.getLogger(__name__)

WHOLE_BYTES = 8 * 1024**2
"""Files up to this size are read whole: one request instead of one for the footer and one for each column."""
_FETCHERS = 8


class _Budget:
    """Bytes that may be on their way."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._used = 0
        self._closed = False
        self._changed = Condition()

    def take(self, size: int) -> bool:
        """Wait until there is room; what is larger than the whole budget goes alone. False: nobody wants it."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._used or self._used + size <= self._most)
            self._used += size
            return not self._closed

    def give_back(self, size: int) -> None:
        with self._changed:
            self._used -= size
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def batches_ahead(batches: Generator[pa.RecordBatch], most_bytes: int) -> Generator[pa.RecordBatch]:
    """The same batches, made in a thread of their own, at most so many bytes ahead.

    What the batches' maker raises is raised here, in its place. Closing the iterator ends the thread.
    """
    budget = _Budget(most_bytes)
    queue: Queue[tuple[pa.RecordBatch | None, int, BaseException | None]] = Queue()

    def make() -> None:
        try:
            for batch in batches:
                size = batch.nbytes
                if not budget.take(size):
                    break
                queue.put((batch, size, None))
            queue.put((None, 0, None))
        except BaseException as error:
            queue.put((None, 0, error))
        finally:
            batches.close()

    thread = Thread(target=make, name="floe-decode", daemon=True)
    thread.start()
    try:
        while True:
            batch, size, error = queue.get()
            if error is not None:
                raise error
            if batch is None:
                return
            yield batch
            del batch
            budget.give_back(size)
    finally:
        budget.close()
        thread.join()


class Fetched:
    """Data files in their order, to be opened one after the other; small objects on S3 are fetched whole beforehand.

    To be used as a context, which ends what is still being fetched.

    :param most_bytes: what may be fetched and not yet read, but for a single file.
    """

    def __init__(self, io: FileIO, files: Sequence[LiveFile], most_bytes: int) -> None:
        self._io = io
        self._files = files
        self._most_bytes = most_bytes
        self._waiting = deque(file for file in files if _whole(io, file))
        self._ahead: dict[str, Future[Any]] = {}
        self._bytes_ahead = 0
        self._pool = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="floe-fetch") if self._waiting else None

    def __enter__(self) -> Fetched:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[LiveFile]:
        for file in self._files:
            self._fetch_more()
            yield file
            if self._ahead.pop(file.path, None) is not None:
                self._bytes_ahead -= file.file_size_bytes

    def open(self, file: LiveFile) -> Any:
        """A file to read from, as a context."""
        if (pending := self._ahead.get(file.path)) is not None:
            try:
                data = pending.result()
                if len(data) == file.file_size_bytes:
                    return pa.BufferReader(data)
                log.info("%s came as %d of %d bytes; reading it again", file.path, len(data), file.file_size_bytes)
            except obstore.exceptions.BaseError as error:
                log.info("%s could not be fetched whole; reading it in parts: %s", file.path, error)
        stream = self._io.new_input(file.path).open()
        if file.file_size_bytes > WHOLE_BYTES:
            return stream
        with stream:
            return pa.BufferReader(stream.read())

    def _fetch_more(self) -> None:
        while self._pool is not None and self._waiting:
            size = self._waiting[0].file_size_bytes
            if self._ahead and self._bytes_ahead + size > self._most_bytes:
                break
            file = self._waiting.popleft()
            if file.path not in self._ahead:
                self._bytes_ahead += size
                self._ahead[file.path] = self._pool.submit(_fetch, self._io, file.path)


def _whole(io: FileIO, file: LiveFile) -> bool:
    return file.file_size_bytes <= WHOLE_BYTES and s3_store(io, file.path) is not None


def _fetch(io: FileIO, path: str) -> Any:
    stored = s3_store(io, path)
    assert stored is not None
    return pa.py_buffer(obstore.get(*stored).bytes())
