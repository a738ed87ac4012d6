"""Writes data files of even size, measured by the bytes on disk."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from airflow_provider_floe.engines.local.encodings import Encodings
from airflow_provider_floe.engines.local.parquet_properties import row_group_bytes
from airflow_provider_floe.engines.local.pyiceberg_adapter import ParquetLayout, data_file, schema_for_spec
from airflow_provider_floe.iceberg.selection import expected_files

ROWS_PER_GROUP = 1_048_576
FEWEST_ROWS_PER_GROUP = 1_000
GROUPS_PER_FILE = 8
"""Row groups of a full file at the least: how finely its end can be placed."""


class RollingWriter:
    """Writes rows of one partition into files near the target size, none of them a small rest.

    After each row group it knows the bytes that a row takes, and so how many files are still to come.

    :param encode: tells the encodings of a file by its first rows.
    :ivar files: what was written, closed files only.
    """

    def __init__(
        self,
        table: Table,
        layout: ParquetLayout,
        *,
        spec_id: int,
        partition: Record,
        target_bytes: int,
        expected_rows: int,
        expected_bytes: int,
        buffer_bytes: int,
        mark: str,
        sort_order_id: int | None,
        announce: Callable[[str], None],
        encode: Callable[[pa.Table], Encodings],
    ) -> None:
        self.files: list[DataFile] = []
        self._table = table
        self._layout = layout
        self._spec_id = spec_id
        self._partition = partition
        self._target = target_bytes
        self._rows_left = expected_rows
        self._buffer_bytes = min(buffer_bytes, row_group_bytes(table.metadata.properties) or buffer_bytes)
        self._mark = mark
        self._sort_order_id = sort_order_id
        self._announce = announce
        self._encode = encode
        self._directory = partition_directory(table, spec_id, partition)
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._pending_bytes = 0
        self._rows_per_group = _rows_per_group(target_bytes, expected_bytes / max(1, expected_rows))
        self._stream: Any = None
        self._parquet: Any = None
        self._path = ""
        self._file_rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows; they are written a row group at a time."""
        while batch.num_rows:
            room = max(1, self._rows_per_group - self._pending_rows)
            head, batch = batch.slice(0, room), batch.slice(room)
            self._pending.append(head)
            self._pending_rows += head.num_rows
            self._pending_bytes += head.nbytes
            if self._pending_rows >= self._rows_per_group or self._pending_bytes >= self._buffer_bytes:
                self._flush()

    def close(self) -> list[DataFile]:
        """Finish the last file; returns all."""
        if self._pending:
            self._flush()
        self._close_file()
        return self.files

    def abandon(self) -> None:
        """Close what is open, as far as that goes; the files are not complete."""
        if self._stream is not None:
            self._stream.close()

    def _flush(self) -> None:
        rows = one_dictionary(pa.Table.from_batches(self._pending, schema=self._layout.rows))
        self._pending, self._pending_rows, self._pending_bytes = [], 0, 0
        if self._parquet is None:
            self._open_file(self._encode(rows))
        self._parquet.write_table(rows, row_group_size=rows.num_rows)
        self._file_rows += rows.num_rows
        self._rows_left = max(0, self._rows_left - rows.num_rows)
        size = self._stream.tell()
        bytes_per_row = size / self._file_rows
        self._rows_per_group = _rows_per_group(self._target, bytes_per_row)
        to_come = size + self._rows_left * bytes_per_row
        files = expected_files(int(to_come), self._target)
        if files > 1 and size + rows.num_rows * bytes_per_row / 2 >= to_come / files:
            self._close_file()

    def _open_file(self, encodings: Encodings) -> None:
        name = f"{self._mark}-{uuid.uuid4()}.parquet"
        self._path = self._table.location_provider().new_data_location(self._directory + name)
        self._announce(self._path)
        self._stream = self._table.io.new_output(self._path).create()
        self._parquet = self._layout.open(self._stream, encodings)
        self._file_rows = 0

    def _close_file(self) -> None:
        if self._parquet is None:
            return
        self._parquet.close()
        size = self._stream.tell()
        self._stream.close()
        metrics = self._layout.metrics(self._parquet.writer.metadata)
        self.files.append(data_file(self._path, self._partition, self._spec_id, size, self._sort_order_id, **metrics))
        self._parquet = self._stream = None


def one_dictionary(rows: pa.Table) -> pa.Table:
    """The same rows, whose columns of dictionaries have one for all rows, with every value once in it.

    A Parquet writer takes such a dictionary as it is. The dictionary of a file need not be one.
    """
    if not any(pa.types.is_dictionary(kind) for kind in rows.schema.types):
        return rows
    rows = rows.unify_dictionaries()
    for number, field in enumerate(rows.schema):
        if pa.types.is_dictionary(field.type) and rows.column(number).num_chunks:
            values = rows.column(number).chunk(0).dictionary
            if len(values.unique()) < len(values):
                plain = rows.column(number).cast(field.type.value_type)
                rows = rows.set_column(number, field, plain.dictionary_encode())
    return rows


def _rows_per_group(target_bytes: int, bytes_per_row: float) -> int:
    rows = int(target_bytes / GROUPS_PER_FILE / max(bytes_per_row, 0.01))
    return min(ROWS_PER_GROUP, max(FEWEST_ROWS_PER_GROUP, rows))


def partition_directory(table: Table, spec_id: int, partition: Record) -> str:
    """Where below the data folder a partition's files go; ends with a slash unless it is empty."""
    spec = table.metadata.specs()[spec_id]
    schema = schema_for_spec(table.metadata, spec)
    return f"{spec.partition_to_path(partition, schema)}/" if spec.fields else ""
