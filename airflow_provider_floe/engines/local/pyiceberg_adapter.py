"""What of pyiceberg is not its public API: rows and their Parquet files here.

Its Arrow reader and its Parquet metrics are public only as parts of larger calls. Manifests are in
``pyiceberg_manifests`` and ``pyiceberg_lists``, commits in ``pyiceberg_commit``; ``pyiceberg_self_test`` tries them.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io import FileIO
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
from pyiceberg.manifest import DataFile, FileFormat
from pyiceberg.schema import Schema, sanitize_column_names
from pyiceberg.table import FileScanTask
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.typedef import Record
from pyiceberg.types import LongType, NestedField

from airflow_provider_floe.engines.local.encodings import DICTIONARIES, Encodings
from airflow_provider_floe.engines.local.parquet_properties import bloom_filters, known_to_pyiceberg
from airflow_provider_floe.engines.local.pyiceberg_manifests import data_file, schema_for_spec
from airflow_provider_floe.engines.local.typed_footers import decimals, narrow

__all__ = [
    "LAST_UPDATED",
    "LINEAGE",
    "ROW_ID",
    "ParquetLayout",
    "data_file",
    "scan_batches",
    "schema_for_spec",
    "split_by_partition",
]

ROW_ID = NestedField(2147483540, "_row_id", LongType(), required=False)
LAST_UPDATED = NestedField(2147483539, "_last_updated_sequence_number", LongType(), required=False)
LINEAGE = (ROW_ID, LAST_UPDATED)
"""Columns in which a file of format version 3 holds the lineage of rows that were in another file before."""


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

    :ivar arrow: schema of the files, with field ids; names sanitised as Iceberg prescribes. From format version 3 on
        the columns of row lineage come last.
    :ivar lineage: the number of those columns. Where there are any, a file that lacks them, or holds NULL in them,
        cannot be copied as it is: its rows would get new ids.
    :ivar rows: the same schema of rows on their way, where some columns may be dictionaries, or narrow decimals.
    :ivar dictionaries: the names of those columns.
    """

    def __init__(self, metadata: TableMetadata) -> None:
        lineage = LINEAGE if metadata.format_version >= 3 else ()
        self.lineage = len(lineage)
        self._table_schema = Schema(*metadata.schema().fields, *lineage)
        self._file_schema = sanitize_column_names(self._table_schema)
        self.arrow: pa.Schema = schema_to_pyarrow(self._file_schema, include_field_ids=True)
        self.rows = self.arrow
        self.dictionaries: tuple[str, ...] = ()
        self._format = FileFormatFactory.get(FileFormat.PARQUET)
        no_metrics = {f"write.metadata.metrics.column.{field.name}": "none" for field in lineage}
        self._plan = compute_statistics_plan(self._file_schema, {**metadata.properties, **no_metrics})
        self._columns = parquet_path_to_id_mapping(self._file_schema)
        self._properties = metadata.properties

    @property
    def table_schema(self) -> Schema:
        """The table's current columns, and those of row lineage."""
        return self._table_schema

    def file_name(self, column: str) -> str:
        """The name that a top-level column of the table has in the files."""
        names = [field.name for field in self._table_schema.fields]
        return str(self.arrow.names[names.index(column)])

    def with_dictionaries(self, columns: Collection[str]) -> ParquetLayout:
        """The same layout, of rows whose columns of these names are dictionaries, as far as that can be.

        Only columns of text or bytes can, and those without a bloom filter.
        """
        without = bloom_filters(self._properties, self.arrow.names)
        layout = copy.copy(self)
        layout.dictionaries = tuple(
            field.name
            for field in self.arrow
            if field.name in columns and field.name not in without and _is_bytes(field.type)
        )
        layout.rows = pa.schema(
            field.with_type(_dictionary_of(field.type)) if field.name in layout.dictionaries else field
            for field in self.rows
        )
        return layout

    def with_narrow_decimals(self) -> ParquetLayout:
        """The same layout, of rows whose decimals take no more bytes than their digits need: for rows that are written
        as they come, for not all that compares or sorts rows knows such types.
        """
        layout = copy.copy(self)
        layout.rows = pa.schema(field.with_type(narrow(field.type)) for field in self.rows)
        return layout

    def conform(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A batch in the table's schema, given the names, types and field ids of the rows to write.

        :raises pyarrow.ArrowInvalid: for a dictionary whose indices point beyond it.
        """
        if self.dictionaries:
            for column in batch.columns:
                if pa.types.is_dictionary(column.type):
                    column.validate(full=True)  # readers check a file's indices only where they look the values up
        if batch.schema.equals(self.rows, check_metadata=True):
            return batch
        if batch.schema.names == self.rows.names:
            columns = [_as(column, wanted.type) for column, wanted in zip(batch.columns, self.rows, strict=True)]
            if [column.type for column in columns] == self.rows.types:
                return pa.RecordBatch.from_arrays(columns, schema=self.rows)
        shaped = _to_requested_schema(
            self._file_schema, self._table_schema, batch, include_field_ids=True, format_model=self._format
        )
        shaped = shaped if shaped.schema.equals(self.arrow, check_metadata=True) else shaped.cast(self.arrow)
        columns = [_as(column, wanted.type) for column, wanted in zip(shaped.columns, self.rows, strict=True)]
        return pa.RecordBatch.from_arrays(columns, schema=self.rows)

    @property
    def writer_options(self) -> dict[str, Any]:
        """Arguments of :class:`pyarrow.parquet.ParquetWriter` by the table's ``write.parquet.*`` properties."""
        return {
            **_get_parquet_writer_kwargs(known_to_pyiceberg(self._properties)),
            "store_decimal_as_integer": True,
        }

    def open(self, stream: Any, encodings: Encodings = DICTIONARIES) -> pq.ParquetWriter:
        """A Parquet writer by the table's properties, with an encoding for each column."""
        options = {**self.writer_options, **encodings.writer_options(self.arrow)}
        if filters := bloom_filters(self._properties, self.arrow.names):
            options["bloom_filter_options"] = filters
        # For Arrow's readers the schema of the files is stored: dictionaries are how rows come, not what they are.
        writer = pq.ParquetWriter(stream, self.rows, store_schema=False, **options)
        writer.add_key_value_metadata({"ARROW:schema": base64.b64encode(self.arrow.serialize().to_pybytes()).decode()})
        return writer

    def metrics(self, footer: pq.FileMetaData) -> dict[str, Any]:
        """Arguments of :class:`DataFile` by the table's ``write.metadata.metrics.*`` modes."""
        found = data_file_statistics_from_parquet_metadata(footer, self._plan, self._columns)
        return found.to_serialized_dict()


def _is_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)
    )


def _dictionary_of(kind: pa.DataType) -> pa.DataType:
    """The type in which pyarrow reads text or bytes as a dictionary, whatever the size of the column's offsets."""
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return pa.dictionary(pa.int32(), pa.string() if text else pa.binary())


def _as(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    """A column in the wanted type; a nested one as it is."""
    if column.type == wanted or pa.types.is_nested(wanted):
        return column
    if pa.types.is_fixed_size_binary(column.type) and pa.types.is_decimal(wanted):
        return decimals(column, wanted)
    if not pa.types.is_dictionary(wanted):
        return column.cast(wanted)
    if pa.types.is_dictionary(column.type):
        return pa.DictionaryArray.from_arrays(column.indices, column.dictionary.cast(wanted.value_type))
    return column.cast(wanted.value_type).dictionary_encode()
