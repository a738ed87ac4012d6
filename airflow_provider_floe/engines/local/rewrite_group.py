"""Rewrites one file group, by copying row groups or by decoding, and verifies before anything is committed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from threading import Lock

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from airflow_provider_floe.engines.local.arrow_memory import steady_memory
from airflow_provider_floe.engines.local.commit import delete_quietly
from airflow_provider_floe.engines.local.copy_plan import CopyPlan, plan_copy
from airflow_provider_floe.engines.local.encodings import Trial, columns_of_few_values
from airflow_provider_floe.engines.local.lineage import verify_lineage
from airflow_provider_floe.engines.local.moving import MOST_OPEN, MovingWriter
from airflow_provider_floe.engines.local.ordering import Ordering, ordered
from airflow_provider_floe.engines.local.pyiceberg_adapter import ParquetLayout
from airflow_provider_floe.engines.local.raw_copy import copy_group
from airflow_provider_floe.engines.local.read_ahead import Fetched, batches_ahead
from airflow_provider_floe.engines.local.reader import GroupReader
from airflow_provider_floe.engines.local.recount import count_deleted
from airflow_provider_floe.engines.local.thrift import FooterError
from airflow_provider_floe.engines.local.verify import Expectation, verify_group
from airflow_provider_floe.engines.local.writer import RollingWriter
from airflow_provider_floe.errors import VerificationFailed
from airflow_provider_floe.iceberg.selection import FileGroup, Selection
from airflow_provider_floe.text import bytes_text, count_text

log = logging.getLogger(__name__)

_WORTH_A_THREAD = 4 * 1024**2
"""Bytes of files from which on decoding goes ahead of encoding."""


@dataclass(frozen=True)
class Written:
    """A group and the files that hold its rows now, not committed yet.

    :ivar copied: the row groups were copied as they were.
    """

    group: FileGroup
    files: Sequence[DataFile]
    copied: bool = False


@dataclass(frozen=True, kw_only=True)
class GroupRewrite:
    """How a file group is rewritten, and who is told of it.

    :ivar expected: what the manifests say of the group's files.
    :ivar trial: finds the encodings, once for all groups.
    :ivar memory_bytes: what buffers and DuckDB may take.
    :ivar announce: called with each file's path before it is written.
    :ivar progress: called with the number of bytes that were read; may raise to stop.
    """

    table: Table
    layout: ParquetLayout
    ordering: Ordering
    selection: Selection
    group: FileGroup
    expected: Expectation
    trial: Trial
    memory_bytes: int
    announce: Callable[[str], None]
    progress: Callable[[int], None]


def rewrite_group(job: GroupRewrite) -> Written:
    """Put a group's live rows into new files.

    :raises VerificationFailed: when what was written is not what was read.
    """
    group = job.group
    text = f"{count_text(len(group.files), 'file')} ({bytes_text(group.size_bytes)})"
    plan = _copy_plan(job)
    if isinstance(plan, CopyPlan):
        log.info("copying the row groups of %s into %s", text, count_text(len(plan.files), "file"))
        files = _copied(job, plan)
        if files is not None:
            return Written(group, files, copied=True)
    else:
        log.info("decoding %s: %s", text, plan)
    with steady_memory():
        files = _decoded(job)
    _verify(job, files, count_deleted(job.table, group, job.expected.partition, job.memory_bytes // 2))
    return Written(group, files)


def _verify(job: GroupRewrite, files: Sequence[DataFile], deleted: int) -> None:
    verify_group(job.table.io, job.table.schema(), job.expected, deleted, files, job.group.output_spec_id)


def _copy_plan(job: GroupRewrite) -> CopyPlan | str:
    """How the group can be copied, else why it cannot."""
    group = job.group
    if job.ordering.terms or job.ordering.z_columns:
        return "its rows are put into order"
    if group.deletes:
        return f"{count_text(len(group.deletes), 'delete file')} may remove rows"
    if group.moves:
        return "its rows move to another partition spec"
    try:
        return plan_copy(job.table, job.layout, job.selection, group)
    except FooterError as error:
        return str(error)


def _copied(job: GroupRewrite, plan: CopyPlan) -> Sequence[DataFile] | None:
    """The verified files; None, and nothing left behind, when the copy turned out not to be one."""
    announced: list[str] = []
    counting, done = Lock(), 0

    def announce_copy(path: str) -> None:
        job.announce(path)
        announced.append(path)

    def count(size: int) -> None:
        nonlocal done
        with counting:
            done += size
        job.progress(size)

    try:
        files = copy_group(
            job.table,
            job.layout,
            job.selection,
            job.group,
            plan,
            job.expected,
            announce=announce_copy,
            progress=count,
        )
        _verify(job, files, deleted=0)
    except (FooterError, VerificationFailed) as error:
        log.warning("decoding after all, for the copy failed its check: %s", error)
        delete_quietly(job.table, announced)
        job.progress(-done)
        return None
    job.progress(job.group.size_bytes - done)
    return files


def _decoded(job: GroupRewrite) -> Sequence[DataFile]:
    table, group, layout = job.table, job.group, job.layout
    if not (job.ordering.columns or group.deletes or group.moves):
        layout = layout.with_narrow_decimals()
    if not group.moves and group.size_bytes >= _WORTH_A_THREAD:
        compared = {layout.file_name(name) for name in job.ordering.columns}
        layout = layout.with_dictionaries(columns_of_few_values(_footer(table, group)) - compared)
    with Fetched(table.io, group.files, job.memory_bytes // 16) as fetched:
        reader = GroupReader(table, layout, job.expected.partition, group.deletes, fetched.open)
        reader.load(group.files)

        def read() -> Generator[pa.RecordBatch]:
            for file in fetched:
                for batch in reader.batches(file):
                    job.progress(0)
                    yield batch
                job.progress(file.file_size_bytes)

        with closing(_ahead(group, read(), job.memory_bytes // 8)) as rows:
            files = _written(job, layout, rows)
    if layout.lineage:
        verify_lineage(table.io, reader.lineage, files)
    return files


def _ahead(group: FileGroup, rows: Generator[pa.RecordBatch], most_bytes: int) -> Generator[pa.RecordBatch]:
    """Rows that are decoded while others are encoded, where there are enough to make a thread worth it."""
    return batches_ahead(rows, most_bytes) if group.size_bytes >= _WORTH_A_THREAD else rows


def _written(job: GroupRewrite, layout: ParquetLayout, rows: Iterator[pa.RecordBatch]) -> Sequence[DataFile]:
    """Put rows of a layout into files."""
    table, group, ordering = job.table, job.group, job.ordering

    def open_writer(partition: Record) -> RollingWriter:
        return RollingWriter(
            table,
            layout,
            spec_id=group.output_spec_id,
            partition=partition,
            target_bytes=job.selection.target_bytes,
            expected_rows=job.expected.rows,
            expected_bytes=group.size_bytes,
            buffer_bytes=max(8 * 1024**2, job.memory_bytes // 6) // (MOST_OPEN if group.moves else 1),
            mark=job.selection.mark,
            sort_order_id=ordering.sort_order_id,
            announce=job.announce,
            encode=lambda rows: job.trial.encodings(rows, layout.writer_options, lambda: _footer(table, group)),
        )

    partition = job.expected.partition
    writer = MovingWriter(table, group.output_spec_id, open_writer) if group.moves else open_writer(partition)
    try:
        arranged = ordered(table, layout, ordering, group, partition, rows, job.memory_bytes * 2 // 5)
        if ordering.terms or ordering.z_columns:
            arranged = _ahead(group, arranged, job.memory_bytes // 16)
        with closing(arranged):
            for batch in arranged:
                job.progress(0)
                writer.write(batch)
        return tuple(writer.close())
    except BaseException:
        writer.abandon()
        raise


def _footer(table: Table, group: FileGroup) -> pq.FileMetaData:
    with table.io.new_input(group.files[0].path).open() as stream:
        return pq.read_metadata(stream)
