"""Reads the rows of data files in file order, without those that delete files remove."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.typedef import Record
from pyiceberg.types import NestedField

from airflow_provider_floe.engines.local.lineage import LineageDigest, with_lineage
from airflow_provider_floe.engines.local.pyiceberg_adapter import ParquetLayout, data_file, scan_batches
from airflow_provider_floe.engines.local.typed_footers import narrow, typed_footers
from airflow_provider_floe.errors import UnsupportedTableFeature
from airflow_provider_floe.iceberg.deletes import DeleteIndex
from airflow_provider_floe.iceberg.deletion_vectors import read_vector
from airflow_provider_floe.iceberg.files import FileContent, LiveFile

BATCH_ROWS = 65_536

_NO_METRICS: dict[str, Any] = {
    "record_count": 0,
    "column_sizes": {},
    "value_counts": {},
    "null_value_counts": {},
    "nan_value_counts": {},
    "lower_bounds": {},
    "upper_bounds": {},
    "split_offsets": None,
}


def project(
    metadata: TableMetadata, io: FileIO, file: LiveFile, partition: Record, schema: Schema
) -> Iterator[pa.RecordBatch]:
    """One file's rows as columns of ``schema``, matched by field id."""
    entry = data_file(file.path, partition, file.spec_id, file.file_size_bytes, None, **_NO_METRICS)
    return scan_batches(metadata, io, entry, schema)


class GroupReader:
    """Reads the files of one partition, with the delete files that apply to them loaded once.

    :param open_file: how data files are opened, as a context.
    :ivar lineage: digest of the lineage of all rows that were given, from format version 3 on.
    """

    def __init__(
        self,
        table: Table,
        layout: ParquetLayout,
        partition: Record,
        deletes: Sequence[LiveFile],
        open_file: Callable[[LiveFile], Any] | None = None,
    ) -> None:
        self._table = table
        self._open_file = open_file or (lambda file: table.io.new_input(file.path).open())
        self._metadata = table.metadata
        self._layout = layout
        self._fast = (pa.schema(list(layout.rows)[: len(layout.rows) - layout.lineage]), layout.rows)
        self._typed = typed_footers(self._fast)
        self._fit: pa.Schema | None = None  # the schema last found to be one of those: most files have the same
        self._partition = partition
        self._index = DeleteIndex(table.metadata, deletes)
        self._deletes = deletes
        self._positions: dict[str, dict[str, list[Any]]] = {}
        self._keys: list[EqualityKeys] = []
        self.lineage = LineageDigest()

    def load(self, files: Sequence[LiveFile]) -> None:
        """Read the delete files, as far as they concern these data files."""
        paths = pa.array(sorted({file.path for file in files}), pa.string())
        for delete in self._deletes:
            if delete.content is FileContent.POSITION_DELETES:
                self._positions[delete.key] = read_positions(self._table.io, delete, paths)
        self._keys = [
            EqualityKeys(key_fields(self._metadata, deletes[0]), read_keys(self._table, deletes, self._partition))
            for deletes in by_columns(self._deletes)
        ]

    def batches(self, file: LiveFile) -> Iterator[pa.RecordBatch]:
        """The rows of one data file that are live, in the layout of the files to write."""
        applicable = self._index.of(file)
        positions = deleted_positions(self._positions, applicable, file.path)
        keys = [one for one in self._keys if one.newest > file.sequence_number]
        current = len(self._layout.table_schema.fields)
        offset = 0
        for batch in self._raw(file, keys):
            if self._layout.lineage:
                place = current - self._layout.lineage
                batch = with_lineage(batch, file, offset, place, list(self._layout.arrow)[place:])
            first, last = np.searchsorted(positions, (offset, offset + batch.num_rows))
            removed = positions[first:last] - offset
            offset += batch.num_rows
            if len(removed) or keys:
                keep = np.ones(batch.num_rows, dtype=bool)
                keep[removed] = False
                for key in keys:
                    keep &= ~key.matches(batch, file.sequence_number)
                if not keep.all():
                    batch = batch.filter(pa.array(keep))
            if batch.num_columns > current:
                batch = batch.select(list(range(current)))
            if batch.num_rows:
                if self._layout.lineage:
                    self.lineage.add(*batch.columns[current - self._layout.lineage : current])
                yield self._layout.conform(batch)

    def _raw(self, file: LiveFile, keys: Sequence[EqualityKeys]) -> Iterator[pa.RecordBatch]:
        """All rows; columns that equality deletes need and the table no longer has stand at the end.

        Columns of row lineage may be left out, where the file has none.
        """
        schema = self._layout.table_schema
        extra = {
            field.field_id: field for key in keys for field in key.fields if field.field_id not in schema.field_ids
        }
        if not extra:
            with self._open_file(file) as stream:
                if (parquet := self._with_wanted_columns(stream, file.file_size_bytes)) is not None:
                    # Room is made for so many rows beforehand, whether they come or not.
                    most = min(BATCH_ROWS, max(1, parquet.metadata.num_rows))
                    yield from parquet.iter_batches(most, use_threads=False)
                    return
        wanted = Schema(*schema.fields, *extra.values())
        yield from project(self._metadata, self._table.io, file, self._partition, wanted)

    def _with_wanted_columns(self, stream: Any, size: int) -> pq.ParquetFile | None:
        """The file in a stream, when it has exactly the columns that are to be written."""
        footer, typed = self._typed.read(stream, size)
        parquet = pq.ParquetFile(
            stream,
            metadata=footer,
            read_dictionary=self._layout.dictionaries,
            pre_buffer=not isinstance(stream, pa.BufferReader),  # what is in memory needs no thread that reads ahead
        )
        if not typed:
            found = parquet.schema_arrow
            fits = self._fit is not None and found.equals(self._fit, check_metadata=True)
            if not fits and not any(_same_columns(found, wanted) for wanted in self._fast):
                return None
            self._fit = found
        return parquet


SEQUENCE = "floe_sequence_number"
"""Column that tells from which delete file a key is."""


class EqualityKeys:
    """The keys of the equality delete files that compare the same columns, in one lookup however many files there are.

    :ivar fields: the columns compared.
    :ivar newest: highest sequence number of a key; data of that number or later is out of reach.
    """

    def __init__(self, fields: Sequence[NestedField], keys: pa.Table) -> None:
        self.fields = tuple(fields)
        columns = [_plain(keys.column(number).combine_chunks()) for number in range(len(self.fields))]
        self._values = [column.unique() for column in columns]
        self._steps: list[Any] = []
        codes = np.zeros(keys.num_rows, dtype=np.int64)
        for column, values in zip(columns, self._values, strict=True):
            codes = codes * (len(values) + 1) + _codes(column, values)
            step = np.unique(codes)
            self._steps.append(step)
            codes = np.searchsorted(step, codes)
        sequence_numbers = keys.column(SEQUENCE).to_numpy()
        self._newest_of_key = np.zeros(len(self._steps[-1]), dtype=np.int64)
        np.maximum.at(self._newest_of_key, codes, sequence_numbers)
        self.newest = int(sequence_numbers.max(initial=0))

    def matches(self, batch: pa.RecordBatch, sequence_number: int) -> Any:
        """A mask of the rows, of data of that sequence number, that equal a later key; NULL equals NULL."""
        codes = np.zeros(batch.num_rows, dtype=np.int64)
        found = np.ones(batch.num_rows, dtype=bool)
        for field, values, step in zip(self.fields, self._values, self._steps, strict=True):
            code = _codes(_plain(batch.column(_column(batch, field))), values)
            found &= code >= 0
            codes = codes * (len(values) + 1) + code
            place = np.minimum(np.searchsorted(step, codes), len(step) - 1)
            found &= step[place] == codes
            codes = place
        return found & (self._newest_of_key[codes] > sequence_number)


def by_columns(deletes: Sequence[LiveFile]) -> list[list[LiveFile]]:
    """Equality delete files, those that compare the same columns together."""
    found: defaultdict[tuple[int, ...], list[LiveFile]] = defaultdict(list)
    for delete in deletes:
        if delete.content is FileContent.EQUALITY_DELETES:
            found[delete.equality_ids or ()].append(delete)
    return list(found.values())


def read_positions(io: FileIO, delete: LiveFile, paths: pa.Array) -> dict[str, list[Any]]:
    """Positions that a position delete file or deletion vector removes, by data file, of the given data files only."""
    if delete.is_deletion_vector:
        path = delete.referenced_data_file
        return {path: [read_vector(io, delete)]} if path is not None and pc.index(paths, path).as_py() >= 0 else {}
    found: defaultdict[str, list[Any]] = defaultdict(list)
    with io.new_input(delete.path).open() as stream:
        for batch in pq.ParquetFile(stream).iter_batches(BATCH_ROWS, columns=["file_path", "pos"]):
            names = batch.column("file_path").cast(pa.string())
            batch = pa.RecordBatch.from_arrays([names, batch.column("pos")], names=["file_path", "pos"])
            batch = batch.filter(pc.is_in(names, value_set=paths))
            for path in batch.column(0).unique().to_pylist():
                mine = batch.filter(pc.equal(batch.column(0), path))
                found[path].append(mine.column(1).to_numpy(zero_copy_only=False))
    return dict(found)


def deleted_positions(positions: dict[str, dict[str, list[Any]]], applicable: Sequence[LiveFile], path: str) -> Any:
    """Sorted distinct positions that the applicable delete files remove from one data file."""
    chunks = [chunk for delete in applicable for chunk in positions.get(delete.key, {}).get(path, ())]
    return np.unique(np.concatenate(chunks)) if chunks else np.empty(0, dtype=np.int64)


def read_keys(table: Table, deletes: Sequence[LiveFile], partition: Record) -> pa.Table:
    """The keys of equality delete files that compare the same columns, in the types that these have now."""
    fields = key_fields(table.metadata, deletes[0])
    tables = []
    for delete in deletes:
        batches = project(table.metadata, table.io, delete, partition, Schema(*fields))
        tables += [
            pa.Table.from_batches([batch]).append_column(
                SEQUENCE, pa.array(np.full(batch.num_rows, delete.sequence_number, dtype=np.int64))
            )
            for batch in batches
        ]
    if not tables:
        names = [*(field.name for field in fields), SEQUENCE]
        return pa.table({name: pa.array([], pa.int64()) for name in names})
    return pa.concat_tables(tables, promote_options="permissive")


def key_fields(metadata: TableMetadata, delete: LiveFile) -> list[NestedField]:
    """The columns of an equality delete file, dropped ones included; all optional, for older data files lack some.

    :raises UnsupportedTableFeature: for a column inside a struct.
    """
    schemas = [metadata.schema(), *sorted(metadata.schemas, key=lambda one: one.schema_id, reverse=True)]
    found = []
    for field_id in delete.equality_ids or ():
        field = next((one for schema in schemas for one in schema.fields if one.field_id == field_id), None)
        if field is None:
            raise UnsupportedTableFeature(
                f"equality delete file {delete.path} compares field {field_id}, which is no top-level column: "
                "the local engine cannot apply it, use spark"
            )
        # another column may bear the name of a dropped one by now
        name = field.name if field_id in metadata.schema().field_ids else f"floe_dropped_{field_id}"
        found.append(field.model_copy(update={"required": False, "name": name}))
    return found


def _column(batch: pa.RecordBatch, field: NestedField) -> int:
    """Columns of a projected batch bear the current names; a fast-path batch has field ids too."""
    for number, column in enumerate(batch.schema):
        if (column.metadata or {}).get(b"PARQUET:field_id") == str(field.field_id).encode():
            return number
    return int(batch.schema.get_field_index(field.name))


def _plain(array: Any) -> Any:
    return array.storage if isinstance(array.type, pa.BaseExtensionType) else array


def _codes(array: Any, values: Any) -> Any:
    """For each element its index in ``values``, NULL included, or -1."""
    if array.type != values.type:
        array = array.cast(values.type)
    return pc.fill_null(pc.index_in(array, value_set=values), -1).to_numpy(zero_copy_only=False).astype(np.int64)


def _same_columns(found: pa.Schema, wanted: pa.Schema) -> bool:
    """Whether a file has exactly the wanted columns: ids, names and types, strings and binaries of either size."""
    return len(found) == len(wanted) and all(map(_same_column, found, wanted))


def _same_column(found: pa.Field, wanted: pa.Field) -> bool:
    if found.equals(wanted, check_metadata=True):
        return True
    ids = [(field.metadata or {}).get(b"PARQUET:field_id") for field in (found, wanted)]
    if found.name != wanted.name or ids[0] != ids[1] or ids[0] is None or pa.types.is_nested(wanted.type):
        return False
    types = [
        kind.value_type if pa.types.is_dictionary(kind) and pa.types.is_dictionary(wanted.type) else kind
        for kind in (found.type, wanted.type)
    ]
    return narrow(types[0]) == narrow(types[1]) or any(
        set(types) <= pair for pair in ({pa.string(), pa.large_string()}, {pa.binary(), pa.large_binary()})
    )
