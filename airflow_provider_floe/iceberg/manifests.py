"""The live files of a snapshot, read from its manifests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pyiceberg.io import FileIO, InputFile
from pyiceberg.manifest import (
    MANIFEST_LIST_FILE_SCHEMAS,
    UNASSIGNED_SEQ,
    ManifestContent,
    ManifestFile,
)
from pyiceberg.table import Table

from airflow_provider_floe.errors import TableUnreadable
from airflow_provider_floe.iceberg.avro import Projection, Row, read_rows
from airflow_provider_floe.iceberg.files import FileContent, LiveFile
from airflow_provider_floe.iceberg.manifest_lists import decode_list

_NAN = float("nan")
"""The one NaN in partition tuples: Python takes two of them for different, and so would part files of one partition."""

DELETED = 2
"""Status of an entry whose file the manifest's snapshot removed."""
ADDED = 1

PATH_COLUMN = 2147483546
"""Field id of ``file_path`` in position delete files."""

_STATUS, _SNAPSHOT_ID, _SEQUENCE_NUMBER, _FILE_SEQUENCE_NUMBER = 0, 1, 3, 4
_PATH, _FORMAT, _PARTITION, _RECORDS, _SIZE = 100, 101, 102, 103, 104
_CONTENT, _EQUALITY_IDS, _SORT_ORDER, _REFERENCED = 134, 135, 140, 143
_FIRST_ROW_ID, _OFFSET, _LENGTH = 142, 144, 145
_LOWER_BOUNDS, _UPPER_BOUNDS = 125, 128

_DATA_FIELDS = (
    _STATUS,
    _SNAPSHOT_ID,
    _SEQUENCE_NUMBER,
    _CONTENT,
    _PATH,
    _FORMAT,
    _PARTITION,
    _RECORDS,
    _SIZE,
    _SORT_ORDER,
    _FILE_SEQUENCE_NUMBER,
)
_REQUIRED = frozenset((_STATUS, _PATH, _FORMAT, _PARTITION, _RECORDS, _SIZE))
_DATA = Projection((*_DATA_FIELDS, _FIRST_ROW_ID), _REQUIRED)
_DELETES = Projection(
    (*_DATA_FIELDS, _EQUALITY_IDS, _REFERENCED, _OFFSET, _LENGTH, _LOWER_BOUNDS, _UPPER_BOUNDS), _REQUIRED | {_CONTENT}
)

_READERS = 8
"""Manifests fetched at a time: object stores answer slowly, but many requests at once."""


def snapshot_manifests(table: Table, snapshot_id: int | None = None) -> list[ManifestFile]:
    """The manifests of a snapshot (default: the current one) as its manifest list names them; none without a snapshot.

    Read anew each time: pyiceberg's process-wide cache of manifests is not used.

    :raises TableUnreadable: when the snapshot does not exist or its manifest list cannot be read.
    """
    if snapshot_id is None:
        snapshot = table.metadata.current_snapshot()
        if snapshot is None:
            return []
    elif (snapshot := table.metadata.snapshot_by_id(snapshot_id)) is None:
        raise TableUnreadable(f"{table.metadata_location} has no snapshot {snapshot_id}")
    try:
        return read_list(table.io.new_input(snapshot.manifest_list))
    except Exception as error:
        raise TableUnreadable(
            f"manifest list {snapshot.manifest_list} of snapshot {snapshot.snapshot_id} cannot be read: {error}"
        ) from error


def read_list(file: InputFile) -> list[ManifestFile]:
    """The manifests that a manifest list names, with what only format version 3 has and pyiceberg leaves out."""
    with file.open() as stream:
        return decode_list(stream.read(), file.location)


def first_row_id(manifest: ManifestFile) -> int | None:
    """Format version 3: the row id from which on a manifest's data files without one of their own are counted."""
    return manifest[_FIRST_ROW_ID_OF_MANIFEST] if len(manifest) > _FIRST_ROW_ID_OF_MANIFEST else None


_FIRST_ROW_ID_OF_MANIFEST = next(
    position for position, field in enumerate(MANIFEST_LIST_FILE_SCHEMAS[3].fields) if field.field_id == 520
)


def live_files(
    io: FileIO, manifests: Iterable[ManifestFile], *, content: FileContent | None = None
) -> Iterator[LiveFile]:
    """The files that the manifests hold as existing or added, in the order of the manifests.

    Sequence numbers and snapshot ids that an entry leaves out are inherited from the manifest. A manifest is read as
    a whole before its first file is given.

    :param content: only files of this content; manifests that cannot hold any are not opened.
    :raises TableUnreadable: naming the manifest that is missing, damaged or not as Iceberg prescribes.
    """
    wanted = [manifest for manifest in manifests if content is None or _may_hold(manifest, content)]
    for manifest, data in read_ahead(io, wanted):
        for file in decode_files(manifest, data):
            if content is None or file.content is content:
                yield file


def decode_files(manifest: ManifestFile, data: bytes) -> Iterator[LiveFile]:
    """The live files in one manifest's bytes; see :func:`live_files`.

    First row ids of files count only where a snapshot's manifest list gave the manifest one; a manifest that is in no
    list yet says what it says.
    """
    if manifest.content == ManifestContent.DELETES:
        yield from _delete_files(manifest, data)
    else:
        for row in data_rows(manifest, data):
            yield data_file(manifest.partition_spec_id, row, manifest.manifest_path)


DataRow = tuple[str, str, tuple[Any, ...], int, int, int, int | None, int | None, int | None, int | None]
"""A live data file, as a plain tuple because there are millions: path, format in upper case, partition, records, bytes,
data sequence number, snapshot id, sort order id, file sequence number, first row id; as :class:`LiveFile` has them."""


def data_rows(manifest: ManifestFile, data: bytes) -> Iterator[DataRow]:
    """The live data files in the bytes of a data manifest; see :func:`decode_files`."""
    path = manifest.manifest_path
    next_row_id = first_row_id(manifest)
    numbered = next_row_id is not None or manifest.sequence_number == UNASSIGNED_SEQ
    # Files of one commit and partition share what they have in common: a third less memory for each.
    formats: dict[str, str] = {}
    partitions: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    one_of: Callable[[Any, Any], Any] = {}.setdefault
    for row in read_rows(data, _DATA, path):
        status, snapshot_id, sequence_number, _, file_path, file_format, stored, records, size, order, written, own = (
            row
        )
        if status == DELETED:
            continue
        if sequence_number is None:
            sequence_number = _inherited(manifest, status, file_path)
        if written is None and status == ADDED:
            written = manifest.sequence_number
        partition = partitions.get(stored)
        if partition is None:
            partition = _with_one_nan(stored)
            partitions[partition] = partition
        row_id: int | None = None
        if numbered:
            row_id = own
            if row_id is None and next_row_id is not None:
                row_id = next_row_id
                next_row_id += records
        yield (
            file_path,
            formats.get(file_format) or formats.setdefault(file_format, file_format.upper()),
            partition,
            records,
            size,
            one_of(sequence_number, sequence_number),
            manifest.added_snapshot_id if snapshot_id is None else one_of(snapshot_id, snapshot_id),
            order,
            one_of(written, written),
            row_id,
        )


def data_file(spec_id: int, row: DataRow, manifest_path: str = "") -> LiveFile:
    """The file that a row describes."""
    path, file_format, partition, records, size, sequence_number, snapshot_id, order, written, row_id = row
    return LiveFile(
        path=path,
        content=FileContent.DATA,
        file_format=file_format,
        spec_id=spec_id,
        partition=partition,
        record_count=records,
        file_size_bytes=size,
        sequence_number=sequence_number,
        snapshot_id=snapshot_id,
        sort_order_id=order,
        manifest_path=manifest_path,
        file_sequence_number=written,
        first_row_id=row_id,
    )


def _delete_files(manifest: ManifestFile, data: bytes) -> Iterator[LiveFile]:
    path = manifest.manifest_path
    for row in read_rows(data, _DELETES, path):
        status, snapshot_id, sequence_number, kind, file_path, file_format, partition, records, size, order, written = (
            row[:11]
        )
        if status == DELETED:
            continue
        if sequence_number is None:
            sequence_number = _inherited(manifest, status, file_path)
        if written is None and status == ADDED:
            written = manifest.sequence_number
        equality_ids, referenced, offset, length = _delete_fields(row)
        yield LiveFile(
            path=file_path,
            content=_CONTENTS[kind or 0],
            file_format=file_format.upper(),
            spec_id=manifest.partition_spec_id,
            partition=_with_one_nan(partition),
            record_count=records,
            file_size_bytes=size,
            sequence_number=sequence_number,
            snapshot_id=manifest.added_snapshot_id if snapshot_id is None else snapshot_id,
            sort_order_id=order,
            equality_ids=equality_ids,
            referenced_data_file=referenced,
            manifest_path=path,
            file_sequence_number=written,
            content_offset=offset,
            content_size_bytes=length,
        )


def _with_one_nan(partition: tuple[Any, ...]) -> tuple[Any, ...]:
    if any(value != value for value in partition):
        return tuple(_NAN if value != value else value for value in partition)
    return partition


def read_ahead(io: FileIO, manifests: Sequence[ManifestFile]) -> Generator[tuple[ManifestFile, bytes]]:
    """The manifests with their bytes, in order, a bounded number fetched ahead.

    :raises TableUnreadable: naming the manifest that cannot be fetched.
    """
    if len(manifests) < 2:
        for manifest in manifests:
            yield manifest, _fetch(io, manifest)
        return
    with ThreadPoolExecutor(_READERS, thread_name_prefix="floe-manifests") as pool:
        pending: deque[tuple[ManifestFile, Future[bytes]]] = deque()
        try:
            for manifest in manifests:
                pending.append((manifest, pool.submit(_fetch, io, manifest)))
                if len(pending) > _READERS:
                    first, data = pending.popleft()
                    yield first, data.result()
            while pending:
                first, data = pending.popleft()
                yield first, data.result()
        finally:
            for _, data in pending:
                data.cancel()


def _fetch(io: FileIO, manifest: ManifestFile) -> bytes:
    try:
        with io.new_input(manifest.manifest_path).open() as stream:
            data = stream.read()
    except Exception as error:
        raise TableUnreadable(f"manifest {manifest.manifest_path} cannot be read: {error}") from error
    # Cut off between two blocks it would decode without complaint, and its files would pass for unreferenced.
    if len(data) < manifest.manifest_length:
        raise TableUnreadable(
            f"manifest {manifest.manifest_path} is cut off: {len(data)} of {manifest.manifest_length} bytes"
        )
    return data


_CONTENTS = tuple(FileContent)


def _may_hold(manifest: ManifestFile, content: FileContent) -> bool:
    return (manifest.content == ManifestContent.DATA) == (content is FileContent.DATA)


def _inherited(manifest: ManifestFile, status: int, file_path: str) -> int:
    """An added file has its manifest's sequence number; manifests of format version 1 have 0 for all files."""
    if status == ADDED or not manifest.sequence_number:
        return manifest.sequence_number or 0
    raise TableUnreadable(
        f"manifest {manifest.manifest_path}: existing file {file_path} has no sequence number, "
        f"which the Iceberg format requires; which deletes apply to it cannot be told"
    )


def _delete_fields(row: Row) -> tuple[tuple[int, ...] | None, str | None, int | None, int | None]:
    kind: int = row[3]
    equality_ids, referenced, offset, length, lower_bounds, upper_bounds = row[11:]
    if kind == FileContent.POSITION_DELETES and referenced is None:
        referenced = _only_path(lower_bounds or {}, upper_bounds or {})
    return equality_ids or None, referenced, offset, length


def _only_path(lower: dict[int, Any], upper: dict[int, Any]) -> str | None:
    """The one data file that a position delete file names: its bounds are equal only then.

    A cut-off bound never equals its counterpart: upper bounds are cut and raised, lower ones only cut.
    """
    bound: bytes | None = lower.get(PATH_COLUMN)
    return bound.decode() if bound is not None and bound == upper.get(PATH_COLUMN) else None
