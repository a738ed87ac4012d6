"""Whole metadata files out of storage, several at a time where storage answers slowly."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from pyiceberg.io import FileIO
from pyiceberg.io.fsspec import FsspecFileIO
from pyiceberg.io.pyarrow import PyArrowFileIO

from airflow_provider_floe.errors import TableUnreadable
from airflow_provider_floe.iceberg.listing import local_path

_READERS = 8


def fetched(io: FileIO, paths: Sequence[str], kind: str) -> Iterator[bytes]:
    """The files' bytes, in order, a bounded number fetched ahead.

    Local files are read one by one: there is no waiting to be saved, and threads cost more than small files do.

    :param kind: what the files are, for people.
    :raises TableUnreadable: naming the file that cannot be fetched.
    """
    if type(io) in (PyArrowFileIO, FsspecFileIO) and all(local_path(io, path) is not None for path in paths):
        for path in paths:
            yield _read(io, path, kind)
        return
    with ThreadPoolExecutor(_READERS, thread_name_prefix="floe-metadata") as pool:
        pending: deque[Future[bytes]] = deque()
        try:
            for path in paths:
                pending.append(pool.submit(_read, io, path, kind))
                if len(pending) > _READERS:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _read(io: FileIO, path: str, kind: str) -> bytes:
    try:
        if type(io) in (PyArrowFileIO, FsspecFileIO) and (local := local_path(io, path)) is not None:
            with open(local, "rb", buffering=0) as file:
                return file.read()
        with io.new_input(path).open() as stream:
            return stream.read()
    except Exception as error:
        raise TableUnreadable(f"{kind} {path} cannot be read: {error}") from error
