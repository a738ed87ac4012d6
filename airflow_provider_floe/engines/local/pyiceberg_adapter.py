"""What of pyiceberg is not its public API: rows and their Parquet files here.

Its Arrow reader and its Parquet metrics are public only as parts of larger calls. Manifests are in
``pyiceberg_manifests`` and ``pyiceberg_lists``, commits in ``pyiceberg_commit``; ``pyiceberg_self_test`` tries them.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    """

    def __init__(self, metadata: TableMetadata) -> None:
        lineage = LINEAGE if metadata.format_version >= 3 else ()
        self.lineage = len(lineage)
        self._table_schema = Schema(*metadata.schema().fields, *lineage)
        self._file_schema = sanitize_column_names(self._table_schema)
        self.arrow: pa.Schema = schema_to_pyarrow(self._file_schema, include_field_ids=True)
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

    def conform(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A batch in the table's schema, given the names, types and field ids of the files."""
        if batch.schema.equals(self.arrow, check_metadata=True):
            return batch
        if batch.schema.names == self.arrow.names:
            columns = [
                column if column.type == wanted.type or pa.types.is_nested(wanted.type) else column.cast(wanted.type)
                for column, wanted in zip(batch.columns, self.arrow, strict=True)
            ]
            if [column.type for column in columns] == self.arrow.types:
                return pa.RecordBatch.from_arrays(columns, schema=self.arrow)
        shaped = _to_requested_schema(
            self._file_schema, self._table_schema, batch, include_field_ids=True, format_model=self._format
        )
        return shaped if shaped.schema.equals(self.arrow, check_metadata=True) else shaped.cast(self.arrow)

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
        return pq.ParquetWriter(stream, self.arrow, **options)

    def metrics(self, footer: pq.FileMetaData) -> dict[str, Any]:
        """Arguments of :class:`DataFile` by the table's ``write.metadata.metrics.*`` modes."""
        found = data_file_statistics_from_parquet_metadata(footer, self._plan, self._columns)
        return found.to_serialized_dict()
