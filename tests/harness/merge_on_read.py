"""Writes position and equality deletes into tables of format version 2, as a merge-on-read writer does.

pyiceberg reads such deletes but writes none, nor manifests that hold them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    ManifestWriterV2,
)
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _FastAppendFiles
from pyiceberg.typedef import Record, TableVersion

from airflow_provider_floe.engines.local.pyiceberg_manifests import with_int_equality_ids

_PATH_ID, _POS_ID = 2147483546, 2147483545
_POSITION_SCHEMA = pa.schema(
    [
        pa.field("file_path", pa.string(), nullable=False, metadata={b"PARQUET:field_id": str(_PATH_ID).encode()}),
        pa.field("pos", pa.int64(), nullable=False, metadata={b"PARQUET:field_id": str(_POS_ID).encode()}),
    ]
)


def position_delete(
    table: Table, deletes: Mapping[str, Sequence[int]], *, file_scoped: bool = False, bounds: bool = True
) -> list[DataFile]:
    """Delete rows by data file path and position, in one commit; the table is refreshed.

    One delete file is written for each partition touched.

    :param file_scoped: one delete file for each data file instead.
    :param bounds: whether path bounds are recorded, from which a reader knows that a delete file is file-scoped.
    """
    files = _prepare_position_deletes(table, deletes, file_scoped=file_scoped, bounds=bounds)
    commit_deletes(table, files)
    return files


def equality_delete(
    table: Table,
    rows: pa.Table,
    columns: Sequence[str],
    *,
    partition: Sequence[Any] = (),
    spec_id: int | None = None,
) -> DataFile:
    """Delete the rows that equal one of ``rows`` in ``columns``, in one commit; the table is refreshed.

    :param partition: the partition tuple (as stored in manifests) that the deletes reach; empty for an unpartitioned
        spec, which makes them global.
    """
    file = prepare_equality_delete(table, rows, columns, partition=partition, spec_id=spec_id)
    commit_deletes(table, [file])
    return file


def prepare_equality_delete(
    table: Table,
    rows: pa.Table,
    columns: Sequence[str],
    *,
    partition: Sequence[Any] = (),
    spec_id: int | None = None,
) -> DataFile:
    """Write an equality delete file without committing it; the parameters are those of :func:`equality_delete`."""
    fields = [table.schema().find_field(column) for column in columns]
    arrow_schema = schema_to_pyarrow(Schema(*fields), include_field_ids=True)
    path, size = _write(table, rows.select(list(columns)).cast(arrow_schema))
    return _data_file(
        path,
        DataFileContent.EQUALITY_DELETES,
        rows.num_rows,
        size,
        table.spec().spec_id if spec_id is None else spec_id,
        Record(*partition),
        equality_ids=[field.field_id for field in fields],
    )


def commit_deletes(table: Table, files: Sequence[DataFile]) -> None:
    """Commit delete files that are already written."""
    with (
        table.transaction() as transaction,
        _AddDeletes(operation=Operation.DELETE, transaction=transaction, io=table.io) as update,
    ):
        for file in files:
            update.append_data_file(file)
    table.refresh()


def _prepare_position_deletes(
    table: Table, deletes: Mapping[str, Sequence[int]], *, file_scoped: bool, bounds: bool
) -> list[DataFile]:
    snapshot = table.current_snapshot()
    assert snapshot is not None
    live = {
        entry.data_file.file_path: entry.data_file
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io)
    }
    groups: dict[Any, list[str]] = defaultdict(list)
    for path in deletes:
        file = live[path]
        groups[path if file_scoped else (file.spec_id, tuple(file.partition))].append(path)
    files = []
    for paths in groups.values():
        rows = sorted((path, position) for path in paths for position in deletes[path])
        names, positions = zip(*rows, strict=True)
        path, size = _write(table, pa.table([list(names), list(positions)], schema=_POSITION_SCHEMA))
        first = live[paths[0]]
        files.append(
            _data_file(
                path,
                DataFileContent.POSITION_DELETES,
                len(rows),
                size,
                first.spec_id,
                first.partition,
                lower={_PATH_ID: names[0].encode()} if bounds else {},
                upper={_PATH_ID: names[-1].encode()} if bounds else {},
            )
        )
    return files


def _write(table: Table, rows: pa.Table) -> tuple[str, int]:
    path = f"{table.location()}/data/delete-{uuid4()}.parquet"
    output = table.io.new_output(path)
    with output.create() as stream:
        pq.write_table(rows, stream)
    return path, len(output)


def _data_file(
    path: str,
    content: DataFileContent,
    records: int,
    size: int,
    spec_id: int,
    partition: Record,
    *,
    equality_ids: list[int] | None = None,
    lower: Mapping[int, bytes] | None = None,
    upper: Mapping[int, bytes] | None = None,
) -> DataFile:
    file = DataFile.from_args(
        content=content,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=partition,
        record_count=records,
        file_size_in_bytes=size,
        column_sizes={},
        value_counts={},
        null_value_counts={},
        nan_value_counts={},
        lower_bounds=lower or {},
        upper_bounds=upper or {},
        key_metadata=None,
        split_offsets=[4],
        equality_ids=equality_ids,
        sort_order_id=None,
    )
    file.spec_id = spec_id
    return file


class _DeleteManifestWriter(ManifestWriterV2):
    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}

    def _with_partition(self, format_version: TableVersion) -> Schema:
        return with_int_equality_ids(super()._with_partition(format_version))


class _AddDeletes(_FastAppendFiles):
    def _manifests(self) -> list[ManifestFile]:
        by_spec: dict[int, list[DataFile]] = defaultdict(list)
        for file in self._added_data_files:
            by_spec[file.spec_id].append(file)
        manifests = []
        for spec_id, files in by_spec.items():
            with _DeleteManifestWriter(
                self.spec(spec_id), self.schema(), self.new_manifest_output(), self._snapshot_id, self._compression
            ) as writer:
                for file in files:
                    writer.add(
                        ManifestEntry.from_args(
                            status=ManifestEntryStatus.ADDED,
                            snapshot_id=self._snapshot_id,
                            sequence_number=None,
                            file_sequence_number=None,
                            data_file=file,
                        )
                    )
            manifests.append(writer.to_manifest_file())
        return manifests + self._existing_manifests()
