"""Manifest lists of all format versions, over private parts of pyiceberg, which writes none of version 3."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from copy import copy

from pyiceberg.avro.file import AvroOutputFile
from pyiceberg.io import FileIO, OutputFile
from pyiceberg.manifest import (
    MANIFEST_LIST_FILE_SCHEMAS,
    ManifestContent,
    ManifestEntryStatus,
    ManifestFile,
    ManifestListWriter,
    ManifestListWriterV2,
    write_manifest_list,
)
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.typedef import TableVersion

from airflow_provider_floe.engines.local.pyiceberg_manifests import codec, read_entries
from airflow_provider_floe.iceberg.manifests import first_row_id

_VERSION: TableVersion = 3
_COUNTS = tuple(
    next(
        position for position, field in enumerate(MANIFEST_LIST_FILE_SCHEMAS[_VERSION].fields) if field.field_id == one
    )
    for one in (504, 505, 506, 512, 513, 514)
)
"""Where a manifest's numbers of added, existing and deleted files stand, and those of their rows."""


class _ListV3(ManifestListWriterV2):
    """Gives data manifests that have none a first row id, with room for all of their rows."""

    def __init__(
        self, io: FileIO, output: OutputFile, meta: dict[str, str], snapshot_id: int, sequence_number: int
    ) -> None:
        ManifestListWriter.__init__(self, _VERSION, output, meta)
        self._io = io
        self._commit_snapshot_id = snapshot_id
        self._sequence_number = sequence_number
        self.next_row_id = int(meta["first-row-id"])

    def __enter__(self) -> ManifestListWriter:
        self._writer = AvroOutputFile[ManifestFile](
            output_file=self._output_file,
            file_schema=MANIFEST_LIST_FILE_SCHEMAS[_VERSION],
            schema_name="manifest_file",
            metadata=self._meta,
        )
        self._writer.__enter__()
        return self

    def prepare_manifest(self, manifest_file: ManifestFile) -> ManifestFile:
        manifest_file = _counted(self._io, manifest_file)
        row_id = first_row_id(manifest_file)
        if manifest_file.content == ManifestContent.DATA and row_id is None:
            row_id = self.next_row_id
            self.next_row_id += (manifest_file.added_rows_count or 0) + (manifest_file.existing_rows_count or 0)
        prepared = super().prepare_manifest(manifest_file)
        fields = MANIFEST_LIST_FILE_SCHEMAS[_VERSION].fields
        return ManifestFile(*[prepared[position] for position in range(len(fields) - 1)], row_id)


def _counted(io: FileIO, manifest: ManifestFile) -> ManifestFile:
    """The manifest with its numbers of files and rows, which format version 1 need not tell and later ones demand."""
    if None not in [manifest[position] for position in _COUNTS]:
        return manifest
    files, rows = Counter[ManifestEntryStatus](), Counter[ManifestEntryStatus]()
    for entry in read_entries(io, manifest, discard_deleted=False):
        files[entry.status] += 1
        rows[entry.status] += entry.data_file.record_count
    counted = copy(manifest)
    counted._data = list(manifest._data)
    statuses = (ManifestEntryStatus.ADDED, ManifestEntryStatus.EXISTING, ManifestEntryStatus.DELETED)
    numbers = [count[status] for count in (files, rows) for status in statuses]
    for position, number in zip(_COUNTS, numbers, strict=True):
        counted[position] = number
    return counted


def write_list(
    io: FileIO,
    metadata: TableMetadata,
    output: OutputFile,
    manifests: Sequence[ManifestFile],
    *,
    snapshot_id: int,
    parent_snapshot_id: int | None,
    sequence_number: int,
) -> int:
    """Write a manifest list.

    :returns: how many row ids the snapshot takes, from the table's next one on; 0 before format version 3.
    """
    compression = codec(metadata)
    if metadata.format_version < 3:
        with write_manifest_list(
            format_version=metadata.format_version,
            output_file=output,
            snapshot_id=snapshot_id,
            parent_snapshot_id=parent_snapshot_id,
            sequence_number=sequence_number,
            avro_compression=compression,
        ) as writer:
            writer.add_manifests(list(manifests))
        return 0
    first = next_row_id(metadata)
    meta = {
        "snapshot-id": str(snapshot_id),
        "parent-snapshot-id": "null" if parent_snapshot_id is None else str(parent_snapshot_id),
        "sequence-number": str(sequence_number),
        "first-row-id": str(first),
        "format-version": "3",
        "avro.codec": compression,
    }
    with _ListV3(io, output, meta, snapshot_id, sequence_number) as lists:
        lists.add_manifests(list(manifests))
    return lists.next_row_id - first  # type: ignore[attr-defined, no-any-return]


def next_row_id(metadata: TableMetadata) -> int:
    """The first row id that no row of the table has; 0 for a table before format version 3."""
    return getattr(metadata, "next_row_id", None) or 0
