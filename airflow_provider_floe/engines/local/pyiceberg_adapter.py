"""Everything of pyiceberg that is not its public API, in one place, with a self-test.

pyiceberg 0.12 writes one Avro block per manifest entry, cannot write delete manifests and offers no rewrite commit;
its Arrow reader and its Parquet metrics are public only as parts of larger calls.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyiceberg
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile, OutputStream
from pyiceberg.io.fileformat import FileFormatFactory
from pyiceberg.io.pyarrow import (
    ArrowScan,
    _determine_partitions,
    _get_parquet_writer_kwargs,
    _to_requested_schema,
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    schema_to_pyarrow,
)
from pyiceberg.manifest import (
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
    write_manifest_list,
)
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionSpec
from pyiceberg.schema import Schema, sanitize_column_names
from pyiceberg.table import FileScanTask, TableProperties
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.typedef import Record, TableVersion
from pyiceberg.types import IntegerType, ListType, LongType, NestedField, StructType

from airflow_provider_floe.errors import ConfigurationError, UnsupportedTableFeature

ENTRIES_PER_BLOCK = 500


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


class _WriterV1(ManifestWriterV1):
    def new_writer(self) -> Any:
        return _Blocks(super().new_writer())

    def to_manifest_file(self) -> ManifestFile:
        manifest = super().to_manifest_file()
        manifest.sequence_number = 0  # format version 1 knows no sequence numbers
        return manifest


class _WriterV2(ManifestWriterV2):
    def __init__(self, content: ManifestContent, *args: Any) -> None:
        super().__init__(*args)
        self._content = content

    def content(self) -> ManifestContent:
        return self._content

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "data" if self._content == ManifestContent.DATA else "deletes"}

    def _with_partition(self, format_version: TableVersion) -> Schema:
        return with_int_equality_ids(super()._with_partition(format_version))

    def new_writer(self) -> Any:
        return _Blocks(super().new_writer())


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

    :raises UnsupportedTableFeature: for a format version that cannot be written.
    """
    spec = metadata.specs()[spec_id]
    return _manifest_writer(
        metadata.format_version, content, spec, schema_for_spec(metadata, spec), output, snapshot_id, codec(metadata)
    )


def _manifest_writer(
    version: int,
    content: ManifestContent,
    spec: PartitionSpec,
    schema: Schema,
    output: OutputFile,
    snapshot_id: int,
    compression: Any,
) -> ManifestWriter:
    if version == 2:
        return _WriterV2(content, spec, schema, output, snapshot_id, compression)
    if version == 1 and content == ManifestContent.DATA:
        return _WriterV1(spec, schema, output, snapshot_id, compression)
    raise UnsupportedTableFeature(f"the local engine cannot write manifests of format version {version}: use spark")


def write_list(
    metadata: TableMetadata,
    output: OutputFile,
    manifests: Sequence[ManifestFile],
    *,
    snapshot_id: int,
    parent_snapshot_id: int | None,
    sequence_number: int,
) -> None:
    """Write a manifest list."""
    with write_manifest_list(
        format_version=metadata.format_version,
        output_file=output,
        snapshot_id=snapshot_id,
        parent_snapshot_id=parent_snapshot_id,
        sequence_number=sequence_number,
        avro_compression=codec(metadata),
    ) as writer:
        writer.add_manifests(list(manifests))


def codec(metadata: TableMetadata) -> Any:
    """The table's Avro codec, as pyiceberg's writers take it."""
    return metadata.properties.get(
        TableProperties.WRITE_AVRO_COMPRESSION, TableProperties.WRITE_AVRO_COMPRESSION_DEFAULT
    )


def schema_for_spec(metadata: TableMetadata, spec: PartitionSpec) -> Schema:
    """The current schema, or the newest one that still has every source column of an old spec."""
    sources = {field.source_id for field in spec.fields}
    schemas = sorted(metadata.schemas, key=lambda schema: schema.schema_id, reverse=True)
    for schema in (metadata.schema(), *schemas):
        if sources <= schema.field_ids:
            return schema
    return metadata.schema()


def scan_batches(metadata: TableMetadata, io_: FileIO, file: DataFile, schema: Schema) -> Iterator[pa.RecordBatch]:
    """One file's rows in file order, projected to ``schema`` by field id: name mapping, promotion, partition values."""
    scan = ArrowScan(metadata, io_, schema, AlwaysTrue())
    return scan._record_batches_from_scan_tasks_and_deletes([FileScanTask(file)], {})


def split_by_partition(metadata: TableMetadata, spec_id: int, rows: pa.Table) -> Iterator[tuple[Record, pa.Table]]:
    """Rows by their partition under a spec, whose transforms need no library beside pyarrow."""
    spec = metadata.specs()[spec_id]
    if spec.is_unpartitioned():
        yield Record(*[None] * len(spec.fields)), rows
        return
    schema = sanitize_column_names(metadata.schema())  # the names that the rows bear
    for part in _determine_partitions(spec, schema, rows):
        yield part.partition_key.partition, part.arrow_table_partition


class ParquetLayout:
    """How rows of a table are laid down in Parquet: names, types, field ids, codec, metrics.

    :ivar arrow: schema of the files, with field ids; names sanitised as Iceberg prescribes.
    """

    def __init__(self, metadata: TableMetadata) -> None:
        self._table_schema = metadata.schema()
        self._file_schema = sanitize_column_names(self._table_schema)
        self.arrow: pa.Schema = schema_to_pyarrow(self._file_schema, include_field_ids=True)
        self._flat = not any(pa.types.is_nested(field.type) for field in self.arrow)
        self._format = FileFormatFactory.get(FileFormat.PARQUET)
        self._plan = compute_statistics_plan(self._file_schema, metadata.properties)
        self._columns = parquet_path_to_id_mapping(self._file_schema)
        self._properties = metadata.properties

    def file_name(self, column: str) -> str:
        """The name that a top-level column of the table has in the files."""
        names = [field.name for field in self._table_schema.fields]
        return str(self.arrow.names[names.index(column)])

    def conform(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A batch in the table's schema, given the names, types and field ids of the files."""
        if batch.schema.equals(self.arrow, check_metadata=True):
            return batch
        if self._flat and batch.schema.names == self.arrow.names:
            columns = [
                column if column.type == wanted.type else column.cast(wanted.type)
                for column, wanted in zip(batch.columns, self.arrow, strict=True)
            ]
            return pa.RecordBatch.from_arrays(columns, schema=self.arrow)
        shaped = _to_requested_schema(
            self._file_schema, self._table_schema, batch, include_field_ids=True, format_model=self._format
        )
        return shaped if shaped.schema.equals(self.arrow, check_metadata=True) else shaped.cast(self.arrow)

    def open(self, stream: Any) -> pq.ParquetWriter:
        """A Parquet writer by the table's ``write.parquet.*`` properties."""
        kwargs = _get_parquet_writer_kwargs(self._properties)
        return pq.ParquetWriter(stream, self.arrow, store_decimal_as_integer=True, **kwargs)

    def metrics(self, footer: pq.FileMetaData) -> dict[str, Any]:
        """Arguments of :class:`DataFile` by the table's ``write.metadata.metrics.*`` modes."""
        found = data_file_statistics_from_parquet_metadata(footer, self._plan, self._columns)
        return found.to_serialized_dict()


def data_file(path: str, partition: Record, spec_id: int, size: int, sort_order_id: int | None, **metrics: Any) -> Any:
    """A Parquet data file as a manifest describes it."""
    file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=partition,
        file_size_in_bytes=size,
        sort_order_id=sort_order_id,
        equality_ids=None,
        key_metadata=None,
        **metrics,
    )
    file.spec_id = spec_id
    return file


# --- self-test -------------------------------------------------------------------------------------------------------


class _Memory(OutputFile, InputFile):
    """A file in memory."""

    def __init__(self) -> None:
        super().__init__("memory:manifest")
        self.content = b""

    def __len__(self) -> int:
        return len(self.content)

    def exists(self) -> bool:
        return True

    def to_input_file(self) -> InputFile:
        return self

    def open(self, seekable: bool = True) -> InputStream:
        return io.BytesIO(self.content)

    def create(self, overwrite: bool = False) -> OutputStream:
        memory = self

        class Stream(io.BytesIO):
            def close(self) -> None:
                memory.content = self.getvalue()
                super().close()

        return Stream()


class _MemoryIO(FileIO):
    def __init__(self, file: _Memory) -> None:
        super().__init__()
        self._file = file

    def new_input(self, location: str) -> InputFile:
        return self._file

    def new_output(self, location: str) -> OutputFile:
        return self._file

    def delete(self, location: str | InputFile | OutputFile) -> None:
        raise NotImplementedError


def self_test() -> None:
    """Write a delete manifest, read it back, and check label, content kind and sequence numbers.

    :raises ConfigurationError: naming the pyiceberg that is installed, when it does not behave as this module needs.
    """
    try:
        problem = _try_manifest()
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    if problem:
        raise ConfigurationError(
            f"pyiceberg {pyiceberg.__version__} does not behave as the local engine needs ({problem}): "
            "install pyiceberg>=0.12,<0.13"
        )


def _try_manifest() -> str | None:
    schema = Schema(NestedField(1, "id", LongType(), required=False))
    output = _Memory()
    footer: dict[str, Any] = {"record_count": 1, "column_sizes": {}, "value_counts": {}, "null_value_counts": {}}
    footer |= {"nan_value_counts": {}, "lower_bounds": {}, "upper_bounds": {}, "split_offsets": [4]}
    writer = _manifest_writer(2, ManifestContent.DELETES, UNPARTITIONED_PARTITION_SPEC, schema, output, 7, "null")
    with writer:
        for number, status in enumerate((ManifestEntryStatus.ADDED, ManifestEntryStatus.EXISTING)):
            file = data_file(f"memory:{number}", Record(), 0, 10, None, **footer)
            entry = ManifestEntry.from_args(
                status=status, snapshot_id=7, sequence_number=5 + number, file_sequence_number=None, data_file=file
            )
            writer.add_entry(entry)
    manifest = writer.to_manifest_file()
    manifest.sequence_number = 9
    found = [
        (entry.status.name, entry.snapshot_id, entry.sequence_number, entry.file_sequence_number)
        for entry in manifest.fetch_manifest_entry(_MemoryIO(output))
    ]
    if found != [("ADDED", 7, 5, 9), ("EXISTING", 7, 6, None)]:
        return f"manifest entries came back as {found}"
    if manifest.content != ManifestContent.DELETES or b"\x0econtent\x0edeletes" not in output.content:
        return "a delete manifest is not labelled as one"
    return None
