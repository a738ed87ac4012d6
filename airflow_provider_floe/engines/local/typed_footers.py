"""Has Parquet files read in the Arrow types that rows are to have, which spares a conversion of every value.

pyarrow takes a column's type from the Arrow schema that a footer may hold, and lets nobody ask for another. So a file's
row groups are put under a footer of our own, whose columns are the same and whose Arrow schema is the wanted one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_provider_floe.engines.local.parquet_footer import UNTRUSTED_WRITERS

_MOST_DIGITS_32, _MOST_DIGITS_64 = 9, 18
_KNOWS_NARROW = int(pa.__version__.partition(".")[0]) >= 22
"""Whether this pyarrow has narrow decimals in Parquet."""


def narrow(kind: pa.DataType) -> pa.DataType:
    """The type of the least bytes that holds a decimal's values; other types, and those of an older pyarrow, stay."""
    if not _KNOWS_NARROW or not pa.types.is_decimal128(kind) or kind.precision > _MOST_DIGITS_64:
        return kind
    return (pa.decimal32 if kind.precision <= _MOST_DIGITS_32 else pa.decimal64)(kind.precision, kind.scale)


class TypedFooters:
    """Footers under which files are read in wanted types.

    :param schemas: those that rows may have, with field ids. Those with nested columns are passed over: a footer tells
        of their leaves alone whether it has the same ones.
    """

    def __init__(self, schemas: Sequence[pa.Schema]) -> None:
        self._empty = [found for schema in schemas for found in _empty_files(schema)]

    def put_on(self, footer: pq.FileMetaData) -> pq.FileMetaData | None:
        """The same row groups under a footer with the wanted types; None when the columns are not the same."""
        if UNTRUSTED_WRITERS.match(footer.created_by):  # ours would hide from the reader who wrote them
            return None
        for schema, file in self._empty:
            if schema.equals(footer.schema):
                typed = pq.read_metadata(pa.BufferReader(file))
                typed.append_row_groups(footer)
                return typed
        return None


def _empty_files(schema: pa.Schema) -> Iterator[tuple[pq.ParquetSchema, pa.Buffer]]:
    """Files without rows, for each way to store decimals, that are read in these types."""
    wanted = pa.schema(field.with_type(_values(field.type)) for field in schema)
    if any(pa.types.is_nested(kind) for kind in wanted.types):
        return
    for as_integer in (False, True):
        sink = pa.BufferOutputStream()
        pq.ParquetWriter(sink, wanted, store_decimal_as_integer=as_integer).close()
        file = sink.getvalue()
        parquet = pq.ParquetFile(pa.BufferReader(file))
        if parquet.schema_arrow.types == wanted.types:
            yield parquet.schema, file


def _values(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind
