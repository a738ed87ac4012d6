"""Row lineage of format version 3: every row keeps its id, and the commit that last changed it, wherever it goes.

A file of new rows leaves both out: a row's id is the file's first row id plus the row's position, and the commit that
changed it last is the one that added the file. Rows that move carry both along in columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile

from airflow_provider_floe.engines.local.pyiceberg_adapter import LAST_UPDATED, ROW_ID
from airflow_provider_floe.errors import VerificationFailed
from airflow_provider_floe.iceberg.files import LiveFile

_NULL = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFT = np.uint64(29)


def with_lineage(
    batch: pa.RecordBatch, file: LiveFile, offset: int, place: int, lineage: Sequence[pa.Field]
) -> pa.RecordBatch:
    """A batch of a file's rows, whose columns of row lineage are there and say what the rows inherit.

    A file that no snapshot of version 3 has been told of gives its rows no ids: they get some where they go.

    :param offset: position in the file of the batch's first row.
    :param place: where the two columns stand, or are to stand.
    :param lineage: the two columns, as they are written.
    """
    columns, fields = list(batch.columns), list(batch.schema)
    there = place < len(fields) and fields[place].name == ROW_ID.name
    fields[place : place + 2 * there] = lineage
    if not there:
        columns[place:place] = [pa.nulls(batch.num_rows, pa.int64())] * 2
    if file.first_row_id is not None:
        start = file.first_row_id + offset
        inherited = pa.array(np.arange(start, start + batch.num_rows, dtype=np.int64))
        columns[place] = pc.coalesce(columns[place], inherited)
    # a file that was rewritten before the upgrade has a data sequence number from before: readers take the file's own
    added_in = file.sequence_number if file.file_sequence_number is None else file.file_sequence_number
    columns[place + 1] = pc.coalesce(columns[place + 1], pa.scalar(added_in, pa.int64()))
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


class LineageDigest:
    """The lineage of many rows in one number, whatever their order."""

    def __init__(self) -> None:
        self.rows = 0
        self._sum = np.uint64(0)

    def add(self, row_ids: Any, last_updated: Any) -> None:
        """Count rows in."""
        with np.errstate(over="ignore"):
            mixed = _mix(_plain(row_ids) * _FIRST + _mix(_plain(last_updated)))
            self._sum += mixed.sum(dtype=np.uint64)
        self.rows += len(row_ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LineageDigest) and (self.rows, self._sum) == (other.rows, other._sum)

    __hash__ = None  # type: ignore[assignment]


def verify_lineage(io: FileIO, read: LineageDigest, written: Sequence[DataFile]) -> None:
    """Read the lineage of the written files back, and hold it against that of the rows that were read.

    :raises VerificationFailed: when a row's id or the commit that changed it last got lost; nothing may be committed.
    """
    found = LineageDigest()
    for file in written:
        with io.new_input(file.file_path).open() as stream:
            for batch in pq.ParquetFile(stream).iter_batches(columns=[ROW_ID.name, LAST_UPDATED.name]):
                found.add(batch.column(ROW_ID.name), batch.column(LAST_UPDATED.name))
    if found != read:
        raise VerificationFailed(
            f"the row lineage of {found.rows:,} rows that were written is not that of the {read.rows:,} rows that were "
            "read: nothing was committed"
        )


def _plain(column: Any) -> Any:
    """Values as unsigned numbers, NULL as one that no table has."""
    values = pc.fill_null(column, 0).to_numpy(zero_copy_only=False).astype(np.uint64)
    return np.where(pc.is_null(column).to_numpy(zero_copy_only=False), _NULL, values)


def _mix(values: Any) -> Any:
    values = (values ^ (values >> _SHIFT)) * _FIRST
    values = (values ^ (values >> _SHIFT)) * _SECOND
    return values ^ (values >> _SHIFT)
