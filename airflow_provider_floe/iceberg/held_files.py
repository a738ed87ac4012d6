"""Millions of files held on disk, a hash and a size of each in memory."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from airflow_provider_floe.iceberg.paths import path_keys
from airflow_provider_floe.iceberg.reachability import FileKind, Found, ReachableFile

_SCHEMA = pa.schema([("path", pa.string()), ("kind", pa.int8()), ("size", pa.int64())])
_KINDS = tuple(FileKind)
_ROWS = 20_000


def hashes(paths: Sequence[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """64 bits for each path, equal for all spellings of one; they mean something in this process only."""
    return np.array(array("q", map(hash, path_keys(paths))), np.int64)


class HeldFiles:
    """Files, each once however often and however spelled it was added, less those that were dropped.

    Files are told from one another by 64 bits of a keyed hash of their path, 33 bytes of memory in all. Two files of
    one hash count as one: at worst a file that could be deleted stays.
    """

    def __init__(self) -> None:
        # without a name, so that it is gone with this object or the process
        self._file = tempfile.TemporaryFile(prefix="floe-files-")  # noqa: SIM115
        self._writer = pa.ipc.new_stream(self._file, _SCHEMA, options=pa.ipc.IpcWriteOptions(compression="lz4"))
        self._rows: tuple[list[str], list[int], list[int]] = ([], [], [])
        self._added, self._sizes = array("q"), array("q")
        self._hashes = np.empty(0, np.int64)
        self._first = np.empty(0, np.int64)
        self._stays = np.empty(0, np.bool_)

    def add(self, found: Found) -> None:
        """Add files, before the first is dropped."""
        paths, kinds, sizes = self._rows
        known = [size or 0 for size in found.sizes]
        self._added.frombytes(hashes(found.paths).tobytes())
        self._sizes.extend(known)
        paths += found.paths
        kinds += [_KINDS.index(found.kind)] * len(known)
        sizes += known
        if len(paths) >= _ROWS:
            self._flush()

    def close(self) -> None:
        """Take no more files."""
        self._flush()
        self._writer.close()
        added = np.frombuffer(self._added, np.int64)
        order = np.argsort(added, kind="stable")
        ordered = added[order]
        fresh = np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]
        if fresh.all():
            self._hashes, self._first = ordered, order
        else:
            self._hashes, self._first = ordered[fresh], order[fresh]
        self._stays = np.ones(len(self._hashes), np.bool_)
        self._added = array("q")

    def drop(self, gone: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        """Drop the files of these hashes."""
        if len(self._hashes) and len(gone):
            gone = np.sort(gone)
            places = np.searchsorted(self._hashes, gone).clip(max=len(self._hashes) - 1)
            self._stays[places[self._hashes[places] == gone]] = False

    def __len__(self) -> int:
        return int(np.count_nonzero(self._stays))

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return int(np.frombuffer(self._sizes, np.int64)[self._first[self._stays]].sum()) if len(self._first) else 0

    def __iter__(self) -> Iterator[ReachableFile]:
        """The files in the order in which they were added."""
        stays = np.zeros(len(self._sizes), np.bool_)
        stays[self._first[self._stays]] = True
        self._file.seek(0)
        done = 0
        for batch in pa.ipc.open_stream(self._file):
            chosen = batch.filter(pa.array(stays[done : done + len(batch)]))
            done += len(batch)
            for path, kind, size in zip(*(column.to_pylist() for column in chosen.columns), strict=True):
                yield ReachableFile(path, _KINDS[kind], size)

    def _flush(self) -> None:
        paths, kinds, sizes = self._rows
        if paths:
            columns = [pa.array(paths, pa.string()), pa.array(kinds, pa.int8()), pa.array(sizes, pa.int64())]
            self._writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))
            self._rows = ([], [], [])
