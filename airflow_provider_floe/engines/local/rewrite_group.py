"""Rewrites one file group: reads, orders, writes, and verifies before anything is committed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from airflow_provider_floe.engines.local.moving import MOST_OPEN, MovingWriter
from airflow_provider_floe.engines.local.ordering import Ordering, ordered
from airflow_provider_floe.engines.local.pyiceberg_adapter import ParquetLayout
from airflow_provider_floe.engines.local.reader import GroupReader
from airflow_provider_floe.engines.local.recount import count_deleted
from airflow_provider_floe.engines.local.verify import Expectation, verify_group
from airflow_provider_floe.engines.local.writer import RollingWriter
from airflow_provider_floe.iceberg.selection import FileGroup, Selection


@dataclass(frozen=True)
class Written:
    """A group and the files that hold its rows now, not committed yet."""

    group: FileGroup
    files: Sequence[DataFile]


def rewrite_group(
    table: Table,
    layout: ParquetLayout,
    ordering: Ordering,
    selection: Selection,
    group: FileGroup,
    expected: Expectation,
    *,
    memory_bytes: int,
    announce: Callable[[str], None],
    progress: Callable[[int], None],
) -> Written:
    """Write a group's live rows anew.

    :param memory_bytes: what buffers and DuckDB may take.
    :param announce: called with each file's path before it is written.
    :param progress: called with the size of each file that was read; may raise to stop.
    :raises VerificationFailed: when what was written is not what was read.
    """
    reader = GroupReader(table, layout, expected.partition, group.deletes)
    reader.load(group.files)

    def rows() -> Iterator[pa.RecordBatch]:
        for file in group.files:
            for batch in reader.batches(file):
                progress(0)
                yield batch
            progress(file.file_size_bytes)

    def open_writer(partition: Record) -> RollingWriter:
        return RollingWriter(
            table,
            layout,
            spec_id=group.output_spec_id,
            partition=partition,
            target_bytes=selection.target_bytes,
            expected_rows=expected.rows,
            expected_bytes=group.size_bytes,
            buffer_bytes=max(8 * 1024**2, memory_bytes // 4) // (MOST_OPEN if group.moves else 1),
            mark=selection.mark,
            sort_order_id=ordering.sort_order_id,
            announce=announce,
        )

    writer = MovingWriter(table, group.output_spec_id, open_writer) if group.moves else open_writer(expected.partition)
    try:
        for batch in ordered(table, layout, ordering, group, expected.partition, rows(), memory_bytes // 2):
            writer.write(batch)
        files = tuple(writer.close())
    except BaseException:
        writer.abandon()
        raise
    deleted = count_deleted(table, group, expected.partition, memory_bytes // 2)
    verify_group(table.io, table.schema(), expected, deleted, files, group.output_spec_id)
    return Written(group, files)
