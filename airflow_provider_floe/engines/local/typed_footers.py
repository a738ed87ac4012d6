"""Has Parquet files read in the Arrow types that rows are to have, which spares a conversion of every value.

pyarrow takes a column's type from the Arrow schema that a footer may hold, and lets nobody ask for another. So a file's
row groups are put under a footer of our own, whose columns are the same and whose Arrow schema is the wanted one.

Decimals that are stored as bytes take pyarrow four times as long as those stored as integers. So those of few digits
are read as the bytes they are, under a footer that does not say that they are decimals, and turned into decimals here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_provider_floe.engines.local.parquet_footer import (
    MAGIC,
    SCHEMA,
    TAIL_BYTES,
    UNTRUSTED_WRITERS,
    VERSION,
    by_pyarrow,
    closed,
    read_closing,
)
from airflow_provider_floe.engines.local.thrift import FooterError, decode, encode

_MOST_DIGITS_32, _MOST_DIGITS_64 = 9, 18
_MOST_BEGINNINGS = 8
_KNOWS_NARROW = int(pa.__version__.partition(".")[0]) >= 22
"""Whether this pyarrow has narrow decimals in Parquet."""


def narrow(kind: pa.DataType) -> pa.DataType:
    """The type of the least bytes that holds a decimal's values; other types, and those of an older pyarrow, stay."""
    if not _KNOWS_NARROW or not pa.types.is_decimal128(kind) or kind.precision > _MOST_DIGITS_64:
        return kind
    return (pa.decimal32 if kind.precision <= _MOST_DIGITS_32 else pa.decimal64)(kind.precision, kind.scale)


@dataclass(frozen=True)
class _Empty:
    """A file without rows, whose footer the row groups of others are put under.

    :ivar columns: those of the files that it suits.
    """

    file: bytes
    columns: pq.ParquetSchema

    def put_on(self, footer: pq.FileMetaData) -> pq.FileMetaData:
        typed = pq.read_metadata(pa.BufferReader(self.file))
        typed.append_row_groups(footer)
        return typed


class TypedFooters:
    """Footers under which files are read in wanted types.

    :param schemas: those that rows may have, with field ids. Those with nested columns are passed over: a footer tells
        of their leaves alone whether it has the same ones.
    """

    def __init__(self, schemas: Sequence[pa.Schema]) -> None:
        wanted = [pa.schema(field.with_type(_values(field.type)) for field in schema) for schema in schemas]
        flat = [schema for schema in wanted if not any(map(pa.types.is_nested, schema.types))]
        self._typed = [one for schema in flat for one in _empty_files(schema)]
        self._bare = [one for schema in flat for one in _bare_files(schema)]
        self._beginnings: tuple[tuple[bytes, bytes, _Empty], ...] = ()
        """How footers of some columns begin, how they would if decimals were bytes, and what these are put under."""

    def read(self, stream: Any, size: int) -> tuple[pq.FileMetaData, bool]:
        """A file's footer, and whether it has the wanted types: that of a file with the same columns.

        Where it has, columns are bytes in place of the narrow decimals that are wanted, or these.

        :param size: of the file, in bytes.
        """
        if not self._bare:
            footer = pq.read_metadata(stream)
        else:
            try:
                closing = read_closing(stream, size)
            except FooterError:  # encrypted, for example
                return pq.read_metadata(stream), False
            if (bare := self._put_on_bare(closing)) is not None:
                return bare, True
            footer = by_pyarrow(closing)
            self._learn(closing, footer)
        typed = self.put_on(footer)
        return (footer, False) if typed is None else (typed, True)

    def put_on(self, footer: pq.FileMetaData) -> pq.FileMetaData | None:
        """The same row groups under a footer with the wanted types; None when the columns are not the same."""
        if _mistrusted(footer):
            return None
        return next((one.put_on(footer) for one in self._typed if one.columns.equals(footer.schema)), None)

    def _put_on_bare(self, closing: bytes) -> pq.FileMetaData | None:
        for begin, bare, empty in self._beginnings:
            if closing.startswith(begin):
                footer = by_pyarrow(closed(bare + closing[len(begin) : -TAIL_BYTES]))
                return None if _mistrusted(footer) else empty.put_on(footer)
        return None

    def _learn(self, closing: bytes, footer: pq.FileMetaData) -> None:
        """Have the files that come after this one, with the same columns from the same writer, read as bytes."""
        empty = next((one for one in self._bare if one.columns.equals(footer.schema)), None)
        if empty is None or len(self._beginnings) >= _MOST_BEGINNINGS:
            return
        try:
            theirs, ours = (decode(end[:-TAIL_BYTES])[0] for end in (closing, empty.file[len(MAGIC) :]))
        except FooterError:  # pyarrow is not as strict
            return
        begin, bare = (encode({VERSION: theirs[VERSION], SCHEMA: one[SCHEMA]})[:-1] for one in (theirs, ours))
        self._beginnings += ((begin, bare, empty),)  # no footer begins so where a writer encodes in another way


@lru_cache(maxsize=8)
def _shared(schemas: tuple[bytes, ...]) -> TypedFooters:
    return TypedFooters([pa.ipc.read_schema(pa.BufferReader(schema)) for schema in schemas])


def typed_footers(schemas: Sequence[pa.Schema]) -> TypedFooters:
    """Footers for these schemas, made once: a run has many file groups."""
    return _shared(tuple(schema.serialize().to_pybytes() for schema in schemas))


def decimals(column: pa.FixedSizeBinaryArray, wanted: pa.DataType) -> pa.Array:
    """Narrow decimals by the bytes that Parquet stores: the unscaled value, big-endian, in two's complement.

    Each is taken with the bytes before it, as many as fill an integer, which are shifted out.
    """
    length, width, size = column.offset + len(column), column.type.byte_width, wanted.bit_width // 8
    validity, stored = column.buffers()
    padded = np.zeros(size - width + length * width, np.uint8)
    if length:
        padded[size - width :] = np.frombuffer(stored, np.uint8, length * width)
    integers = np.ndarray((length,), f">i{size}", padded, strides=(width,)).astype(f"i{size}")
    shift = 8 * (size - width)
    integers <<= shift
    integers >>= shift
    return pa.Array.from_buffers(wanted, len(column), [validity, pa.py_buffer(integers)], offset=column.offset)


def _mistrusted(footer: pq.FileMetaData) -> bool:
    """A footer of ours would hide from the reader who wrote the file."""
    return UNTRUSTED_WRITERS.match(footer.created_by) is not None


def _empty_files(schema: pa.Schema) -> Iterator[_Empty]:
    """Files for each way to store decimals that are read in a schema's types."""
    for as_integer in (False, True):
        file = _empty_file(schema, store_decimal_as_integer=as_integer)
        parquet = pq.ParquetFile(pa.BufferReader(file))
        if parquet.schema_arrow.types == schema.types:
            yield _Empty(file, parquet.schema)


def _bare_files(schema: pa.Schema) -> Iterator[_Empty]:
    """A file with bytes in place of narrow decimals, if there are any."""
    columns = pq.ParquetFile(pa.BufferReader(_empty_file(schema))).schema
    bare = pa.schema(
        field.with_type(pa.binary(columns.column(number).length)) if _is_narrow(field.type) else field
        for number, field in enumerate(schema)
    )
    if bare.types != schema.types:
        yield _Empty(_empty_file(bare), columns)


def _empty_file(schema: pa.Schema, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.ParquetWriter(sink, schema, **options).close()
    return bytes(sink.getvalue().to_pybytes())


def _is_narrow(kind: pa.DataType) -> bool:
    return _KNOWS_NARROW and (pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind))


def _values(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind
