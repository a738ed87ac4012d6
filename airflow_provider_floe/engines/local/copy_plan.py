"""Concatenates Parquet files by copying their row groups as they are: no decoding, only the footer is written anew.

Worth it where row groups are large already, and possible where nothing about the rows changes: no deletes, no order, no
other partition spec or codec, and files that have the table's current columns. Everything else is decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.table import Table, TableProperties
from pyiceberg.table.metadata import TableMetadata

from airflow_provider_floe.engines.local.parquet_footer import (
    COLUMN_ORDERS,
    CREATED_BY,
    KEY_VALUES,
    NUM_ROWS,
    ROW_GROUPS,
    SCHEMA,
    TAIL_BYTES,
    UNTRUSTED_WRITERS,
    VERSION,
    RowGroup,
    by_pyarrow,
    read_closing,
    row_groups,
    structs,
    value,
)
from airflow_provider_floe.engines.local.pyiceberg_adapter import ParquetLayout
from airflow_provider_floe.engines.local.thrift import BINARY, LIST, STRUCT, FooterError, Struct, decode
from airflow_provider_floe.iceberg.files import LiveFile
from airflow_provider_floe.iceberg.selection import LARGE, SMALL, FileGroup, Selection, expected_files
from airflow_provider_floe.text import bytes_text

LEAST_GROUP_BYTES = 8 * 1024**2
"""Row groups smaller than this, on average, are read and written anew: many small ones make slow readers."""
GROUPS_PER_FILE = 8
"""Row groups of a full file at the most that may be smaller than that, where the target is small."""
_READERS = 8
_CODECS = {"uncompressed": 0, "none": 0, "snappy": 1, "gzip": 2, "brotli": 4, "zstd": 6, "lz4": 7, "lz4_raw": 7}


@dataclass(frozen=True)
class Source:
    """A file whose row groups are copied. Its footer is kept as bytes: taken apart, it takes twenty times the memory.

    :ivar footer: the encoded footer, with its length and the magic.
    :ivar footer_start: offset of the footer; row groups and indexes stand before it.
    :ivar sizes: bytes of each row group.
    """

    file: LiveFile
    footer: bytes
    footer_start: int
    sizes: Sequence[int]

    def fields(self) -> Struct:
        """The footer, taken apart."""
        return decode(self.footer[:-TAIL_BYTES])[0]

    def row_groups(self) -> list[RowGroup]:
        """The row groups, in order."""
        return row_groups(self.fields(), self.footer_start)

    def metadata(self) -> pq.FileMetaData:
        """The footer as pyarrow reads it."""
        return by_pyarrow(self.footer)


Part = tuple[Source, int]
"""A row group, by its file and number."""


@dataclass(frozen=True)
class CopyPlan:
    """How a file group is copied.

    :ivar files: the row groups of each file to write.
    :ivar head: the fields of the new footers that do not depend on the row groups.
    """

    files: Sequence[Sequence[Part]]
    head: Struct


def plan_copy(table: Table, layout: ParquetLayout, selection: Selection, group: FileGroup) -> CopyPlan:
    """How a group is copied. The group's order, deletes and spec are the caller's to look at.

    :raises FooterError: saying why it has to be decoded.
    """
    least = min(LEAST_GROUP_BYTES, selection.target_bytes // GROUPS_PER_FILE)
    _check_average(group.size_bytes, len(group.files), least)  # a file has a row group at least: spares the footers
    alike = _Alike(table.metadata, layout)
    sources = []
    with ThreadPoolExecutor(_READERS, thread_name_prefix="floe-footers") as pool:
        for source in pool.map(lambda file: read_source(table.io, file), group.files):
            alike.check(source)
            sources.append(source)
    _check_average(group.size_bytes, sum(len(source.sizes) for source in sources), least)
    return CopyPlan(_packed(sources, selection.target_bytes), alike.head)


def read_source(io: FileIO, file: LiveFile) -> Source:
    """Read a file's footer.

    :raises FooterError: when it is none that can be copied from.
    """
    size = file.file_size_bytes
    with io.new_input(file.path).open() as stream:
        footer = read_closing(stream, size)
    source = Source(file, footer, size - len(footer), ())
    groups = source.row_groups()
    if sum(group.rows for group in groups) != file.record_count:
        raise FooterError(f"{file.path} does not have the {file.record_count:,} rows that its manifest says")
    return replace(source, sizes=tuple(group.size_bytes for group in groups))


def _check_average(size: int, groups: int, least: int) -> None:
    if size < least * groups:
        raise FooterError(f"row groups of {bytes_text(size // groups)} on average are smaller than {bytes_text(least)}")


class _Alike:
    """Holds each file against the table, and against the first."""

    def __init__(self, metadata: TableMetadata, layout: ParquetLayout) -> None:
        properties = metadata.properties
        name = properties.get(TableProperties.PARQUET_COMPRESSION, TableProperties.PARQUET_COMPRESSION_DEFAULT)
        self.head: Struct = {}
        self._codec = name.lower()
        self._layout = layout

    def check(self, source: Source) -> None:
        """Take one more file in.

        :raises FooterError: saying what does not fit.
        """
        footer = source.fields()
        codecs = frozenset[int]().union(*(group.codecs for group in row_groups(footer, source.footer_start)))
        if not codecs <= {_CODECS.get(self._codec)}:
            raise FooterError(f"the files are compressed by {_codec_names(codecs)}, and are to be by {self._codec}")
        writer = (value(footer, CREATED_BY, BINARY) or b"").decode(errors="replace")
        if UNTRUSTED_WRITERS.match(writer):
            raise FooterError(f"readers mistrust what {writer} wrote")
        try:
            metadata = source.metadata()
            found = metadata.schema.to_arrow_schema()
        except Exception as error:
            raise FooterError(f"pyarrow cannot read the footer of {source.file.path}: {error}") from error
        wanted = self._layout.arrow
        if len(found) != len(wanted) or not all(map(_same_field, found, wanted)):
            raise FooterError("the files do not have the table's current columns")
        try:
            self._layout.metrics(metadata)
        except Exception as error:
            raise FooterError(f"the footer of {source.file.path} gives no metrics: {error}") from error
        if self._layout.lineage:
            _check_lineage(metadata, self._layout.lineage)
        head = {field_id: kept for field_id, kept in footer.items() if field_id not in (NUM_ROWS, ROW_GROUPS)}
        self.head = _common(self.head, head) if self.head else head


def _check_lineage(metadata: pq.FileMetaData, columns: int) -> None:
    """Row ids that a file does not hold come from its manifest entry, so a copy would give its rows new ones."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for column in range(group.num_columns - columns, group.num_columns):
            statistics = group.column(column).statistics
            if statistics is None or not statistics.has_null_count or statistics.null_count:
                raise FooterError("row ids have to be written out")


def _common(first: Struct, other: Struct) -> Struct:
    """What the footers of two files have in common.

    :raises FooterError: where they must not differ.
    """
    if _columns(first) != _columns(other):
        raise FooterError("the files differ in their columns")
    if first.get(COLUMN_ORDERS) != other.get(COLUMN_ORDERS):
        raise FooterError("the files' statistics follow different orders")
    common = {field_id: kept for field_id, kept in first.items() if other.get(field_id) == kept}
    common[SCHEMA] = first[SCHEMA]
    common[VERSION] = max(first[VERSION], other[VERSION])
    others = structs(other, KEY_VALUES)
    same = [pair for pair in structs(first, KEY_VALUES) if pair in others]
    common.pop(KEY_VALUES, None)
    return common | ({KEY_VALUES: (LIST, (STRUCT, same))} if same else {})


def _codec_names(codecs: frozenset[int]) -> str:
    names = {number: name for name, number in reversed(_CODECS.items())}
    return " and ".join(sorted(names.get(codec, f"codec {codec}") for codec in codecs))


def _columns(footer: Struct) -> Sequence[Struct]:
    """The schema, but for the name of its root, which each writer chooses."""
    root, *columns = structs(footer, SCHEMA)
    return [{field_id: found for field_id, found in root.items() if field_id != 4}, *columns]


def _same_field(found: pa.Field, wanted: pa.Field) -> bool:
    """Whether a column is what the table's schema has now: id, name and type, strings and lists of either size."""
    key = b"PARQUET:field_id"
    field_id = (found.metadata or {}).get(key)
    if found.name != wanted.name or field_id is None or field_id != (wanted.metadata or {}).get(key):
        return False
    return _same_type(found.type, wanted.type)


def _same_type(found: pa.DataType, wanted: pa.DataType) -> bool:
    types = pa.types
    if types.is_struct(wanted):
        return types.is_struct(found) and len(found) == len(wanted) and all(map(_same_field, list(found), list(wanted)))
    if types.is_map(wanted):
        return (
            types.is_map(found)
            and _same_field(found.key_field, wanted.key_field)
            and _same_field(found.item_field, wanted.item_field)
        )
    if types.is_list(wanted) or types.is_large_list(wanted):
        return (types.is_list(found) or types.is_large_list(found)) and _same_field(
            found.value_field, wanted.value_field
        )
    pairs = ((pa.string(), pa.large_string()), (pa.binary(), pa.large_binary()))
    return found == wanted or any(found in pair and wanted in pair for pair in pairs)


def _packed(sources: Sequence[Source], target: int) -> list[list[Part]]:
    """Row groups in their order, cut into files of about even size.

    :raises FooterError: when row groups are too large for files near the target.
    """
    parts = [(source, number) for source in sources for number in range(len(source.sizes))]
    size = sum(sum(source.sizes) for source in sources)
    count = expected_files(size, target)
    files: list[list[Part]] = [[] for _ in range(count)]
    sizes = [0] * count
    done = 0
    for source, number in parts:
        middle = done + source.sizes[number] // 2
        place = min(count - 1, middle * count // max(1, size))
        files[place].append((source, number))
        sizes[place] += source.sizes[number]
        done += source.sizes[number]
    if not parts or (count > 1 and (min(sizes) < SMALL * target or max(sizes) > LARGE * target)):
        raise FooterError(f"the row groups do not divide into files near {bytes_text(target)}")
    return files
