"""Files that were found in a listing, on disk: there may be as many as the table has."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator

import pyarrow as pa

from airflow_provider_floe.iceberg.file_comparison import LISTING
from airflow_provider_floe.iceberg.listing import ListedFile, in_batches

_ROWS = 20_000


class FoundFiles:
    """Listed files, some 20,000 at a time by path; read anew each time, not by two at once. None stays in memory."""

    def __init__(self, files: Iterable[ListedFile] = ()) -> None:
        # without a name, so that it is gone with this object or the process
        self._file = tempfile.TemporaryFile(prefix="floe-found-")  # noqa: SIM115
        self._count = 0
        self.size_bytes = 0
        """Of all files."""
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.ipc.new_stream(self._file, LISTING, options=options) as writer:
            for batch in in_batches(files, _ROWS):
                by_column = zip(*sorted(batch), strict=True)
                columns = [pa.array(values, field.type) for values, field in zip(by_column, LISTING, strict=True)]
                writer.write_batch(pa.record_batch(columns, schema=LISTING))
                self._count += len(batch)
                self.size_bytes += sum(file.size_bytes for file in batch)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[ListedFile]:
        self._file.seek(0)
        for batch in pa.ipc.open_stream(self._file):
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield ListedFile(*values)
