"""What a copy of row groups needs of Parquet footers.

pyarrow reads footers but cannot write one that describes bytes which are there already.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_provider_floe.engines.local.thrift import I16, I32, I64, LIST, STRUCT, FooterError, Struct, decode, encode

MAGIC = b"PAR1"
TAIL_BYTES = 8
"""Length of the footer, and the magic."""
_FOOTER_GUESS = 64 * 1024

# FileMetaData
VERSION, SCHEMA, NUM_ROWS, ROW_GROUPS, KEY_VALUES, CREATED_BY, COLUMN_ORDERS = 1, 2, 3, 4, 5, 6, 7
_ENCRYPTION, _SIGNING_KEY = 8, 9
# RowGroup
COLUMNS, GROUP_ROWS, GROUP_OFFSET, GROUP_ORDINAL = 1, 3, 5, 7
# ColumnChunk
CHUNK_FILE, CHUNK_FILE_OFFSET, CHUNK_METADATA = 1, 2, 3
OFFSET_INDEX, OFFSET_INDEX_LENGTH, COLUMN_INDEX, COLUMN_INDEX_LENGTH = 4, 5, 6, 7
_CHUNK_CRYPTO = (8, 9)
# ColumnMetaData
CODEC, CHUNK_SIZE, DATA_PAGE, INDEX_PAGE, DICTIONARY_PAGE = 4, 7, 9, 10, 11
BLOOM_FILTER, BLOOM_FILTER_LENGTH = 14, 15
# OffsetIndex and PageLocation
PAGE_LOCATIONS, PAGE_OFFSET = 1, 1

UNTRUSTED_WRITERS = re.compile(r"parquet-mr( version)? 1\.[0-7](\D|$)|parquet-cpp( version)? 1\.[0-2](\D|$)")
"""Writers whose statistics or encodings had faults that readers know of by the writer's name."""


@dataclass(frozen=True)
class RowGroup:
    """A row group: its structure, and the bytes of the file that hold it.

    :ivar fields: the Thrift structure.
    :ivar start: offset of its first byte.
    :ivar end: offset after its last byte.
    :ivar codecs: Thrift's numbers of the codecs in use.
    """

    fields: Struct
    start: int
    end: int
    rows: int
    codecs: frozenset[int]

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return self.end - self.start


def value(fields: Struct, field_id: int, *kinds: int) -> Any:
    """A field's value, or None where it is left out.

    :raises FooterError: when it is of another type than the format prescribes.
    """
    found = fields.get(field_id)
    if found is None:
        return None
    if found[0] not in kinds:
        raise FooterError(f"field {field_id} of the footer has type {found[0]}, not {kinds[0]}")
    return found[1]


def structs(fields: Struct, field_id: int) -> Sequence[Struct]:
    """A field's list of structures.

    :raises FooterError: when it is something else, or missing.
    """
    kind, items = value(fields, field_id, LIST) or (0, [])
    if kind != STRUCT and items:
        raise FooterError(f"field {field_id} of the footer is no list of structures")
    found: list[Struct] = items
    return found


def parse_tail(tail: bytes) -> int:
    """Length of the footer, by a file's last eight bytes.

    :raises FooterError: for what is no plain Parquet file, an encrypted one for example.
    """
    if len(tail) != TAIL_BYTES or tail[4:] != MAGIC:
        raise FooterError(f"the file ends in {tail[4:]!r}, not {MAGIC!r}")
    return int(struct.unpack("<I", tail[:4])[0])


def read_exactly(stream: Any, offset: int, length: int) -> bytes:
    """So many bytes from an offset on.

    :raises FooterError: when the file ends before.
    """
    stream.seek(offset)
    data: bytes = stream.read(length)
    if len(data) != length:
        raise FooterError(f"the file ends {length - len(data):,} bytes before its manifest says")
    return data


def read_closing(stream: Any, size: int) -> bytes:
    """A footer with its length and the magic, from the end of a file.

    :param size: of the file, in bytes.
    :raises FooterError: when there is none.
    """
    end = read_exactly(stream, max(0, size - _FOOTER_GUESS), min(size, _FOOTER_GUESS))
    length = parse_tail(end[-TAIL_BYTES:]) + TAIL_BYTES
    if length + len(MAGIC) > size:
        raise FooterError(f"the footer is said to be {length - TAIL_BYTES:,} bytes long, more than the file")
    return end[-length:] if length <= len(end) else read_exactly(stream, size - length, length)


def by_pyarrow(closing: bytes) -> pq.FileMetaData:
    """A footer, with its length and the magic, as pyarrow reads it."""
    return pq.read_metadata(pa.BufferReader(MAGIC + closing))


def closing(fields: Struct) -> bytes:
    """A footer with its length and the magic, as a file ends."""
    return closed(encode(fields))


def closed(encoded: bytes) -> bytes:
    """An encoded footer with its length and the magic."""
    return encoded + struct.pack("<I", len(encoded)) + MAGIC


def row_groups(footer: Struct, footer_start: int) -> list[RowGroup]:
    """The row groups of a footer, in order, each with the bytes that belong to it.

    :param footer_start: offset of the footer, where all data has ended.
    :raises FooterError: for groups that overlap, leave the file, stand in other files or are encrypted.
    """
    if _ENCRYPTION in footer or _SIGNING_KEY in footer:
        raise FooterError("the file is encrypted or signed")
    found = [_row_group(fields) for fields in structs(footer, ROW_GROUPS)]
    end = len(MAGIC)
    for group in found:
        if group.start < end:
            raise FooterError("row groups overlap, or do not stand in their order")
        end = group.end
    if end > footer_start:
        raise FooterError("a row group reaches beyond the footer's begin")
    rows = value(footer, NUM_ROWS, I64)
    if rows != sum(group.rows for group in found):
        raise FooterError(f"the footer counts {rows} rows, its row groups {sum(group.rows for group in found)}")
    return found


def _row_group(fields: Struct) -> RowGroup:
    spans = []
    codecs = set()
    for chunk in structs(fields, COLUMNS):
        if CHUNK_FILE in chunk or any(one in chunk for one in _CHUNK_CRYPTO):
            raise FooterError("a column stands in another file, or is encrypted")
        metadata = value(chunk, CHUNK_METADATA, STRUCT)
        if metadata is None:
            raise FooterError("a column has no metadata in the footer")
        start, size = chunk_start(metadata), value(metadata, CHUNK_SIZE, I64)
        if size is None or size < 0:
            raise FooterError(f"a column has a size of {size}")
        spans.append((start, start + size))
        codecs.add(value(metadata, CODEC, I32))
    rows = value(fields, GROUP_ROWS, I64)
    if not spans or rows is None or rows < 0 or None in codecs:
        raise FooterError("a row group lacks columns, codecs or a number of rows")
    spans.sort()
    for before, after in pairwise(spans):
        if after[0] < before[1]:
            raise FooterError("columns of a row group overlap")
    first, last = spans[0][0], max(end for _, end in spans)
    if last - first > sum(end - start for start, end in spans) + _MOST_PADDING:
        raise FooterError("a row group's columns do not stand together")
    return RowGroup(fields, first, last, rows, frozenset(codecs))


_MOST_PADDING = 1024**2
"""Bytes between columns, of writers that align them."""


def chunk_start(metadata: Struct) -> int:
    """Offset of a column chunk's first page.

    :raises FooterError: when it is missing or lies before all data.
    """
    start = value(metadata, DATA_PAGE, I64)
    dictionary = value(metadata, DICTIONARY_PAGE, I64)
    if start is not None and dictionary is not None and 0 < dictionary < start:
        start = dictionary
    if start is None or start < len(MAGIC):
        raise FooterError(f"a column begins at {start}")
    return int(start)


def moved_group(group: RowGroup, start: int, ordinal: int) -> Struct:
    """A row group's structure for its place in another file, without indexes and bloom filters.

    :param start: offset of its first byte there.
    :param ordinal: its number there.
    """
    shift = start - group.start
    columns = []
    for chunk in structs(group.fields, COLUMNS):
        metadata = dict(chunk[CHUNK_METADATA][1])
        for one in (DATA_PAGE, INDEX_PAGE, DICTIONARY_PAGE):
            offset = value(metadata, one, I64)
            if offset:  # some writers say 0 for none
                metadata[one] = (I64, offset + shift)
        for one in (BLOOM_FILTER, BLOOM_FILTER_LENGTH):
            metadata.pop(one, None)
        moved = dict(chunk)
        moved[CHUNK_METADATA] = (STRUCT, metadata)
        moved[CHUNK_FILE_OFFSET] = (I64, 0)  # as the format asks: no metadata stands beside the data
        for one in (OFFSET_INDEX, OFFSET_INDEX_LENGTH, COLUMN_INDEX, COLUMN_INDEX_LENGTH):
            moved.pop(one, None)
        columns.append(moved)
    fields = dict(group.fields)
    fields[COLUMNS] = (LIST, (STRUCT, columns))
    if GROUP_OFFSET in fields:
        fields[GROUP_OFFSET] = (I64, start)
    fields.pop(GROUP_ORDINAL, None)
    if ordinal < 2**15:
        fields[GROUP_ORDINAL] = (I16, ordinal)
    return fields


def moved_offset_index(index: bytes, shift: int) -> bytes:
    """A page index's offsets, for pages that stand ``shift`` bytes further on.

    :raises FooterError: when it is no offset index.
    """
    fields, end = decode(index)
    if end != len(index):
        raise FooterError("an offset index is shorter than the footer says")
    pages = [dict(page) for page in structs(fields, PAGE_LOCATIONS)]
    for page in pages:
        offset = value(page, PAGE_OFFSET, I64)
        if offset is None:
            raise FooterError("a page in an offset index has no offset")
        page[PAGE_OFFSET] = (I64, offset + shift)
    return encode(fields | {PAGE_LOCATIONS: (LIST, (STRUCT, pages))})
