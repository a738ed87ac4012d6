"""Manifests of all format versions, over private parts of pyiceberg.

pyiceberg 0.12 writes one Avro block per entry, writes no delete manifests and nothing of format version 3, and drops
what only that version has when it reads. Here entries are read whole and written whole.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, cast

from pyiceberg.avro.file import AvroFile, AvroOutputFile
from pyiceberg.io import FileIO, OutputFile
from pyiceberg.manifest import (
    DATA_FILE_TYPE,
    MANIFEST_ENTRY_SCHEMAS,
    UNASSIGNED_SEQ,
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    ManifestWriter,
    ManifestWriterV1,
    ManifestWriterV2,
    _inherit_from_manifest,
    data_file_with_partition,
    manifest_entry_schema_with_data_file,
)
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import TableProperties
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.transforms import VoidTransform
from pyiceberg.typedef import Record, TableVersion
from pyiceberg.types import IntegerType, ListType, StructType
from pyiceberg.utils.schema_conversion import AvroSchemaConversion

from airflow_provider_floe.errors import UnsupportedTableFeature
from airflow_provider_floe.iceberg.manifests import first_row_id

ENTRIES_PER_BLOCK = 500

_NEWEST: TableVersion = 3
_FILE_FIELDS = DATA_FILE_TYPE[_NEWEST].fields
_FIRST_ROW_ID, _REFERENCED, _OFFSET, _LENGTH = (
    next(position for position, field in enumerate(_FILE_FIELDS) if field.field_id == field_id)
    for field_id in (142, 143, 144, 145)
)
_SINCE_V3 = frozenset((142, 144, 145))
"""Fields of a file that version 2 does not have; it does know the data file that a delete file refers to."""


class _Blocks:
    """Wraps pyiceberg's Avro writer so that many entries share a block: a third smaller, twice as fast to read."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._pending: list[Any] = []

    def __enter__(self) -> _Blocks:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._flush()
        self._writer.__exit__(kind, error, trace)

    def write_block(self, entries: Sequence[Any]) -> None:
        self._pending.extend(entries)
        if len(self._pending) >= ENTRIES_PER_BLOCK:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._writer.write_block(self._pending)
            self._pending = []

    def tell(self) -> int:
        return int(self._writer.tell())

    @property
    def output_file(self) -> OutputFile:
        return self._writer.output_file  # type: ignore[no-any-return]


class _Failing(ManifestWriter):
    """Lets the error through that ended the writing: pyiceberg would complain of an empty manifest instead."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            super().__exit__(kind, error, trace)
            return
        self.closed = True
        with suppress(Exception):
            self._writer.__exit__(kind, error, trace)


class _WriterV1(_Failing, ManifestWriterV1):
    def new_writer(self) -> Any:
        return _Blocks(super().new_writer())

    def to_manifest_file(self) -> ManifestFile:
        manifest = super().to_manifest_file()
        manifest.sequence_number = 0  # format version 1 knows no sequence numbers
        return manifest


class _WriterV2(_Failing, ManifestWriterV2):
    def __init__(self, content: ManifestContent, *args: Any) -> None:
        super().__init__(*args)
        self._content = content

    def content(self) -> ManifestContent:
        return self._content

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "data" if self._content == ManifestContent.DATA else "deletes"}

    def _with_partition(self, format_version: TableVersion) -> Schema:
        partition = self._spec.partition_type(self._schema)
        fields = data_file_with_partition(format_version=_NEWEST, partition_type=partition).fields
        if format_version < _NEWEST:
            fields = tuple(field for field in fields if field.field_id not in _SINCE_V3)
        whole = manifest_entry_schema_with_data_file(format_version=_NEWEST, data_file=StructType(*fields))
        return with_int_equality_ids(whole)

    def new_writer(self) -> Any:
        return _Blocks(
            AvroOutputFile[ManifestEntry](
                output_file=self._output_file,
                file_schema=self._with_partition(self.version),
                record_schema=self._with_partition(_NEWEST),
                schema_name="manifest_entry",
                metadata=self._meta,
            )
        )

    def prepare_entry(self, entry: ManifestEntry) -> ManifestEntry:
        _whole(entry.data_file)
        return super().prepare_entry(entry)


class _WriterV3(_WriterV2):
    """Row ids of added files are left out: whoever reads counts them from the manifest's own."""

    @property
    def version(self) -> TableVersion:
        return 3


def _whole(file: DataFile) -> None:
    """Give a file the fields that it lacks when it was made for an older version."""
    file._data.extend([None] * (len(_FILE_FIELDS) - len(file._data)))


def with_int_equality_ids(entry: Schema) -> Schema:
    """The schema of manifest entries with ``equality_ids`` as ints, as the format says: pyiceberg takes longs.

    Java readers cannot read a manifest that has equality ids as longs.
    """
    file = entry.find_field("data_file")
    ids = ListType(136, IntegerType(), element_required=True)
    fields = [
        field.model_copy(update={"field_type": ids}) if field.name == "equality_ids" else field
        for field in file.field_type.fields  # type: ignore[attr-defined]
    ]
    whole = file.model_copy(update={"field_type": StructType(*fields)})
    return Schema(*(whole if field.field_id == file.field_id else field for field in entry.fields))


def manifest_writer(
    metadata: TableMetadata, content: ManifestContent, spec_id: int, output: OutputFile, snapshot_id: int
) -> ManifestWriter:
    """A manifest writer of the table's format version, for data or delete files.

    Existing and deleted entries must come from :func:`read_entries`, which reads them whole.

    :raises UnsupportedTableFeature: for a format version that cannot be written.
    """
    spec = metadata.specs()[spec_id]
    return new_writer(
        metadata.format_version, content, spec, schema_for_spec(metadata, spec), output, snapshot_id, codec(metadata)
    )


def new_writer(
    version: int,
    content: ManifestContent,
    spec: PartitionSpec,
    schema: Schema,
    output: OutputFile,
    snapshot_id: int,
    compression: Any,
) -> ManifestWriter:
    """A manifest writer for a format version.

    :raises UnsupportedTableFeature: for one that cannot be written.
    """
    if version in (2, 3):
        writer = _WriterV2 if version == 2 else _WriterV3
        return writer(content, spec, schema, output, snapshot_id, compression)
    if version == 1 and content == ManifestContent.DATA:
        return _WriterV1(spec, schema, output, snapshot_id, compression)
    raise UnsupportedTableFeature(
        f"the local engine cannot write {content.name.lower()} manifests of format version {version}: use engine spark"
    )


def manifest_header(metadata: TableMetadata, content: ManifestContent, spec_id: int) -> dict[str, str]:
    """What stands before the first block of a manifest of the table's format version, for whoever encodes entries.

    :raises UnsupportedTableFeature: for a format version that cannot be written.
    """
    writer = manifest_writer(metadata, content, spec_id, cast(OutputFile, None), 0)
    schema = AvroSchemaConversion().iceberg_to_avro(writer._with_partition(writer.version), "manifest_entry")
    return {**writer._meta, "avro.schema": json.dumps(schema)}


def read_entries(io: FileIO, manifest: ManifestFile, *, discard_deleted: bool = True) -> list[ManifestEntry]:
    """A manifest's entries with all their fields, what they inherit filled in, first row ids included."""
    next_row_id = first_row_id(manifest)
    entries = []
    with AvroFile[ManifestEntry](
        io.new_input(manifest.manifest_path),
        MANIFEST_ENTRY_SCHEMAS[_NEWEST],
        read_types={-1: ManifestEntry, 2: DataFile},
        read_enums={0: ManifestEntryStatus, 101: FileFormat, 134: DataFileContent},
    ) as reader:
        for entry in reader:
            deleted = entry.status == ManifestEntryStatus.DELETED
            if deleted and discard_deleted:
                continue
            file = entry.data_file
            if next_row_id is None:
                if manifest.sequence_number != UNASSIGNED_SEQ:  # one that is not in a snapshot yet says what it says
                    file[_FIRST_ROW_ID] = None
            elif file[_FIRST_ROW_ID] is None and not deleted:
                file[_FIRST_ROW_ID] = next_row_id
                next_row_id += file.record_count
            entries.append(_inherit_from_manifest(entry, manifest))
    return entries


def codec(metadata: TableMetadata) -> Any:
    """The table's Avro codec, as pyiceberg's writers take it."""
    return metadata.properties.get(
        TableProperties.WRITE_AVRO_COMPRESSION, TableProperties.WRITE_AVRO_COMPRESSION_DEFAULT
    )


def schema_for_spec(metadata: TableMetadata, spec: PartitionSpec) -> Schema:
    """The current schema, or the newest one that still has every source column of an old spec.

    :raises UnsupportedTableFeature: when none has: the types of partition values are lost.
    """
    every = {field.source_id for field in spec.fields}
    sources = {field.source_id for field in spec.fields if not isinstance(field.transform, VoidTransform)}
    schemas = [metadata.schema(), *sorted(metadata.schemas, key=lambda schema: schema.schema_id, reverse=True)]
    for wanted in (every, sources):
        for schema in schemas:
            if wanted <= schema.field_ids:
                return schema
    raise UnsupportedTableFeature(
        f"partition spec {spec.spec_id} has files and partitions by columns with ids {sorted(sources)}, which no "
        "schema of the table holds together any more, maybe since an engine cleaned expired metadata. Restore a "
        "schema that has them from an earlier metadata file"
    )


def data_file(path: str, partition: Record, spec_id: int, size: int, sort_order_id: int | None, **metrics: Any) -> Any:
    """A Parquet data file as a manifest describes it."""
    return _file(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=partition,
        spec_id=spec_id,
        file_size_in_bytes=size,
        sort_order_id=sort_order_id,
        **metrics,
    )


def position_delete_file(
    path: str, file_format: FileFormat, partition: Record, spec_id: int, size: int, records: int, **fields: Any
) -> Any:
    """A position delete file, or a deletion vector with ``referenced_data_file`` and its place in the Puffin file.

    :param fields: more of what a manifest says of a file, by Iceberg's names.
    """
    return _file(
        content=DataFileContent.POSITION_DELETES,
        file_path=path,
        file_format=file_format,
        partition=partition,
        spec_id=spec_id,
        file_size_in_bytes=size,
        record_count=records,
        **fields,
    )


def _file(*, spec_id: int, **fields: Any) -> Any:
    file = DataFile.from_args(_NEWEST, **fields)
    file.spec_id = spec_id
    return file


def file_key(file: DataFile) -> str:
    """What tells a file from all others, as :attr:`~airflow_provider_floe.iceberg.files.LiveFile.key` does."""
    offset = file[_OFFSET] if len(file) > _OFFSET else None
    return file.file_path if offset is None else f"{file.file_path}#{offset}"


def referenced_data_file(file: DataFile) -> str | None:
    """The only data file that a delete file is for, if it says so."""
    return file[_REFERENCED] if len(file) > _REFERENCED else None


def stored_bytes(file: DataFile) -> int:
    """Bytes that are the file's own: those of a deletion vector, not of the Puffin file around it."""
    length = file[_LENGTH] if len(file) > _LENGTH else None
    return file.file_size_in_bytes if length is None else length
