"""Carries a copy of row groups out, and holds what was written against its sources before anything is committed."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from threading import Event
from typing import Any

import pyarrow.parquet as pq
from pyiceberg.conversions import to_bytes
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import DoubleType, FloatType

from airflow_provider_floe.engines.local.copy_plan import CopyPlan, Part, Source
from airflow_provider_floe.engines.local.group_work import raise_cause
from airflow_provider_floe.engines.local.parquet_footer import (
    BLOOM_FILTER,
    BLOOM_FILTER_LENGTH,
    CHUNK_METADATA,
    COLUMN_INDEX,
    COLUMN_INDEX_LENGTH,
    COLUMNS,
    MAGIC,
    NUM_ROWS,
    OFFSET_INDEX,
    OFFSET_INDEX_LENGTH,
    ROW_GROUPS,
    RowGroup,
    closing,
    moved_group,
    moved_offset_index,
    read_exactly,
    structs,
    value,
)
from airflow_provider_floe.engines.local.pyiceberg_adapter import ParquetLayout, data_file
from airflow_provider_floe.engines.local.thrift import I32, I64, LIST, STRUCT, Struct
from airflow_provider_floe.engines.local.verify import Expectation
from airflow_provider_floe.engines.local.writer import partition_directory
from airflow_provider_floe.errors import VerificationFailed
from airflow_provider_floe.iceberg.listing import local_path
from airflow_provider_floe.iceberg.selection import FileGroup, Selection

CHUNK_BYTES = 8 * 1024**2
_AT_A_TIME = 2
"""Files of a group that are written at a time: the kernel, or the storage, copies one while the next is prepared."""
_MOST_INDEX_BYTES = 32 * 1024**2
"""Indexes and bloom filters of one input file beyond this are left out, for they pass through memory."""
_EDGE_BYTES = 64

Progress = Callable[[int], None]


def copy_group(
    table: Table,
    layout: ParquetLayout,
    selection: Selection,
    group: FileGroup,
    plan: CopyPlan,
    expected: Expectation,
    *,
    announce: Callable[[str], None],
    progress: Progress,
) -> list[DataFile]:
    """Write the files of a plan.

    :param announce: called with each file's path before it is written.
    :param progress: called with the number of bytes that were copied; may raise to stop.
    :raises FooterError: when an input file cannot be copied from after all.
    :raises VerificationFailed: when a file that was written does not hold what its sources hold.
    """
    directory = partition_directory(table, group.output_spec_id, expected.partition)
    failed = Event()

    def count(size: int) -> None:
        if failed.is_set():
            raise InterruptedError("another file of the group failed")
        progress(size)

    def copy(parts: Sequence[Part]) -> DataFile:
        try:
            return copy_file(parts)
        except BaseException:
            failed.set()
            raise

    def copy_file(parts: Sequence[Part]) -> DataFile:
        name = f"{directory}{selection.mark}-{uuid.uuid4()}.parquet"
        path = table.location_provider().new_data_location(name)
        announce(path)
        with _target(table.io, path) as target:
            _write(table.io, target, plan.head, parts, count)
        with table.io.new_input(path).open() as stream:
            written = pq.ParquetFile(stream).metadata
        _verify(table.io, path, written, parts)
        metrics = layout.metrics(written)
        _settle_floats(metrics, expected, table.schema())
        made: DataFile = data_file(
            path, expected.partition, group.output_spec_id, target.position, sort_order_id=None, **metrics
        )
        return made

    if len(plan.files) == 1:
        return [copy(plan.files[0])]
    with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="floe-copy") as pool:
        copies = [pool.submit(copy, parts) for parts in plan.files]
        wait(copies, return_when=FIRST_EXCEPTION)
        for one in copies:
            one.cancel()
    failures = [error for one in copies if not one.cancelled() and (error := one.exception())]
    raise_cause(failures)
    return [one.result() for one in copies]


@dataclass
class _Target:
    """A file being written.

    :ivar local: whether both it and what is copied may be handed to the kernel.
    """

    stream: Any
    local: bool
    position: int = 0

    def write(self, data: bytes) -> None:
        self.stream.write(data)
        self.position += len(data)

    def copy(self, source: Any, start: int, length: int, progress: Progress) -> None:
        """Append a part of another file."""
        end = start + length
        if self.local and hasattr(os, "copy_file_range"):
            start += self._copy_in_kernel(source, start, length, progress)
        while start < end:
            data = read_exactly(source, start, min(CHUNK_BYTES, end - start))
            self.write(data)
            start += len(data)
            progress(len(data))

    def _copy_in_kernel(self, source: Any, start: int, length: int, progress: Progress) -> int:
        """Bytes that were copied: some file systems cannot, or not all."""
        self.stream.flush()
        done = 0
        try:
            while done < length:
                most = min(8 * CHUNK_BYTES, length - done)
                count = os.copy_file_range(source.fileno(), self.stream.fileno(), most, start + done)
                if count == 0:
                    break
                done += count
                progress(count)
        except OSError:
            pass  # reading and writing tell what is wrong, if anything is
        self.position += done
        self.stream.seek(self.position)
        return done


@contextmanager
def _target(io: FileIO, path: str) -> Iterator[_Target]:
    if (local := local_path(io, path)) is not None:
        os.makedirs(os.path.dirname(local), exist_ok=True)
        with open(local, "xb") as file:
            yield _Target(file, local=True)
    else:
        with io.new_output(path).create() as stream:
            yield _Target(stream, local=False)


def _opened(io: FileIO, path: str) -> Any:
    local = local_path(io, path)
    return open(local, "rb", buffering=0) if local is not None else io.new_input(path).open()


@dataclass
class _Indexes:
    """Page indexes and bloom filters on their way into the new file, with the structures that will point to them."""

    blooms: list[tuple[bytes, Struct]] = field(default_factory=list)
    columns: list[tuple[bytes, Struct]] = field(default_factory=list)
    offsets: list[tuple[bytes, Struct]] = field(default_factory=list)

    def write(self, target: _Target) -> None:
        for entries, at, length_at in (
            (self.blooms, BLOOM_FILTER, BLOOM_FILTER_LENGTH),
            (self.columns, COLUMN_INDEX, COLUMN_INDEX_LENGTH),
            (self.offsets, OFFSET_INDEX, OFFSET_INDEX_LENGTH),
        ):
            for data, fields in entries:
                fields[at] = (I64, target.position)
                fields[length_at] = (I32, len(data))
                target.write(data)


def _write(io: FileIO, target: _Target, head: Struct, parts: Sequence[Part], progress: Progress) -> None:
    target.write(MAGIC)
    groups: list[Struct] = []
    rows = 0
    indexes = _Indexes()
    for source, of_source in groupby(parts, key=lambda part: part[0]):
        known = source.row_groups()
        with ExitStack() as stack:
            stream = stack.enter_context(_opened(io, source.file.path))
            after = _after_groups(stream, source, known)
            for _, number in of_source:
                group = known[number]
                moved = moved_group(group, target.position, len(groups))
                _collect(indexes, group, moved, target.position - group.start, after)
                target.copy(stream, group.start, group.size_bytes, progress)
                groups.append(moved)
                rows += group.rows
    indexes.write(target)
    target.write(closing(head | {NUM_ROWS: (I64, rows), ROW_GROUPS: (LIST, (STRUCT, groups))}))


def _after_groups(stream: Any, source: Source, groups: Sequence[RowGroup]) -> tuple[int, bytes]:
    """What stands between a file's row groups and its footer, with its offset: indexes, where a writer makes some."""
    start = groups[-1].end
    length = source.footer_start - start
    if not 0 < length <= _MOST_INDEX_BYTES:
        return start, b""
    return start, read_exactly(stream, start, length)


def _collect(indexes: _Indexes, group: RowGroup, moved: Struct, shift: int, after: tuple[int, bytes]) -> None:
    for old, new in zip(structs(group.fields, COLUMNS), structs(moved, COLUMNS), strict=True):
        old_metadata, new_metadata = old[CHUNK_METADATA][1], new[CHUNK_METADATA][1]
        if bloom := _slice(old_metadata, BLOOM_FILTER, BLOOM_FILTER_LENGTH, after):
            indexes.blooms.append((bloom, new_metadata))
        pages = _slice(old, OFFSET_INDEX, OFFSET_INDEX_LENGTH, after)
        bounds = _slice(old, COLUMN_INDEX, COLUMN_INDEX_LENGTH, after)
        if pages:  # bounds of pages that cannot be found are of no use
            indexes.offsets.append((moved_offset_index(pages, shift), new))
            if bounds:
                indexes.columns.append((bounds, new))


def _slice(fields: Struct, at: int, length_at: int, after: tuple[int, bytes]) -> bytes:
    offset, length = value(fields, at, I64), value(fields, length_at, I32)
    if offset is None or not length:
        return b""
    first = offset - after[0]
    if first < 0 or length < 0 or first + length > len(after[1]):
        return b""
    return after[1][first : first + length]


# --- verification ----------------------------------------------------------------------------------------------------


def _verify(io: FileIO, path: str, written: pq.FileMetaData, parts: Sequence[Part]) -> None:
    """Hold what pyarrow reads of the new footer against what it reads of the sources', row group by row group."""
    if written.num_row_groups != len(parts):
        raise VerificationFailed(f"{path} has {written.num_row_groups} row groups, not {len(parts)}")
    place = 0
    with ExitStack() as stack:
        target = stack.enter_context(_opened(io, path)) if local_path(io, path) is not None else None
        for source, of_source in groupby(parts, key=lambda part: part[0]):
            metadata = source.metadata()
            with ExitStack() as opened:
                stream = opened.enter_context(_opened(io, source.file.path)) if target else None
                for _, number in of_source:
                    old, new = metadata.row_group(number), written.row_group(place)
                    if old.num_rows != new.num_rows or old.num_columns != new.num_columns:
                        raise VerificationFailed(f"row group {place} of {path} has not the rows and columns it had")
                    for column in range(old.num_columns):
                        _verify_chunk(path, old.column(column), new.column(column), stream, target)
                    place += 1


def _verify_chunk(path: str, old: Any, new: Any, stream: Any, target: Any) -> None:
    if _facts(old) != _facts(new) or not _same_statistics(old.statistics, new.statistics):
        raise VerificationFailed(f"column {old.path_in_schema} of {path} is not described as in its source")
    if stream is None:
        return  # the bytes went through this process, each read checked for its length
    size = old.total_compressed_size
    edge = min(_EDGE_BYTES, size)
    for offset in (0, size - edge):
        before = os.pread(stream.fileno(), edge, _first(old) + offset)
        if before != os.pread(target.fileno(), edge, _first(new) + offset):
            raise VerificationFailed(f"column {old.path_in_schema} of {path} does not hold the bytes of its source")


def _facts(chunk: Any) -> tuple[Any, ...]:
    return (
        chunk.path_in_schema,
        chunk.physical_type,
        chunk.num_values,
        chunk.compression,
        chunk.encodings,
        chunk.total_compressed_size,
        chunk.total_uncompressed_size,
        chunk.data_page_offset - _first(chunk),
    )


def _first(chunk: Any) -> int:
    dictionary = chunk.dictionary_page_offset
    has_one = dictionary is not None and 0 < dictionary < chunk.data_page_offset
    return int(dictionary if has_one else chunk.data_page_offset)


def _same_statistics(old: Any, new: Any) -> bool:
    if old is None or new is None:
        return old is new
    return (old.null_count, old.num_values, old.has_min_max, str(old.min), str(old.max)) == (
        new.null_count,
        new.num_values,
        new.has_min_max,
        str(new.min),
        str(new.max),
    )


def _settle_floats(metrics: dict[str, Any], expected: Expectation, schema: Schema) -> None:
    """Take bounds of floating-point columns from the manifests: footers may count NaN in, and mix up signs of zero."""
    for field_id in list(metrics["lower_bounds"]):
        kind = schema.find_type(field_id)
        if isinstance(kind, FloatType | DoubleType):
            bounds = expected.known_bounds.get(field_id)
            for number, name in enumerate(("lower_bounds", "upper_bounds")):
                if bounds is None or any(map(math.isnan, bounds)):
                    metrics[name].pop(field_id, None)
                else:
                    metrics[name][field_id] = to_bytes(kind, bounds[number])
