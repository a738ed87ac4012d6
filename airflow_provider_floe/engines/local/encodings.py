"""Which Parquet encoding suits each column: tried on a sample of the rows that are to be written.

A dictionary that does not pay costs time and bytes, and what pays does not follow from a type. Delta encodings save a
tenth more, but many readers do not know them, Iceberg's own vectorised reader in Spark among them until lately: so they
are used only where the input files have them already, or the table's owner allows them. Where the table sets no level
for zstd, a column is compressed faster if that costs no bytes, or a level harder if that pays.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from airflow_provider_floe.errors import ConfigurationError

log = logging.getLogger(__name__)

PROPERTY = "floe.parquet-encodings"
"""Table property: ``compatible`` (default) or ``delta``."""

SAMPLE_ROWS = 65_536
LEAST_ROWS = 8 * SAMPLE_ROWS
"""With fewer rows to write a trial costs more than it saves."""
_LEAST_SAMPLE = 10_000
_DICTIONARY_GAIN = 0.97
"""A dictionary is worth its time when it leaves less than this share of the bytes."""
_SATURATED = 1.4
"""Distinct values of the whole sample by those of its half: below, a dictionary hardly grows any more."""

_FAST_LEVEL, _HARD_LEVEL = -2, 2
"""Of zstd, below and above the 1 that pyarrow takes unless told.

Where only the upper bytes of numbers repeat, the fast level passes over short matches that cost more than they save.
The hard level costs little time more, and the next more than it saves bytes.
"""
_LEVEL_GAIN = 0.99
"""The hard level is worth its time when it leaves less than this share of the bytes."""
_SHORT_BYTES = 2
"""Bytes by value, not compressed, up to which a file's column has few values: indices into a small dictionary."""

DELTA_INTEGERS, DELTA_STRINGS = "DELTA_BINARY_PACKED", "DELTA_LENGTH_BYTE_ARRAY"


@dataclass(frozen=True)
class Encodings:
    """How columns are encoded, by their path in the file.

    :ivar plain: columns without a dictionary.
    :ivar delta: columns in a delta encoding, and in which.
    :ivar levels: columns that are compressed at another level than the others.
    """

    plain: frozenset[str] = frozenset()
    delta: Mapping[str, str] = field(default_factory=dict)
    levels: Mapping[str, int] = field(default_factory=dict)

    def writer_options(self, schema: pa.Schema) -> dict[str, Any]:
        """Arguments of :class:`pyarrow.parquet.ParquetWriter`."""
        options: dict[str, Any] = {}
        if without := self.plain | self.delta.keys():
            options["use_dictionary"] = [path for path in _leaves(schema) if path not in without]
        if self.levels:
            options["compression_level"] = dict(self.levels)
        if self.delta:
            options["column_encoding"] = dict(self.delta)
        return options


DICTIONARIES = Encodings()
"""A dictionary for every column, as far as it goes: what Parquet writers do unasked."""


class Trial:
    """The encodings of a run: tried once, on the first rows that are enough, and kept for all its file groups.

    :param rows: how many rows the run is to write.
    :raises ConfigurationError: for an unknown value of the table property.
    """

    def __init__(self, properties: Mapping[str, str], rows: int) -> None:
        wanted = properties.get(PROPERTY, "compatible")
        if wanted not in ("compatible", "delta"):
            raise ConfigurationError(f"table property {PROPERTY}={wanted!r} is not known: use compatible or delta")
        self._delta = wanted == "delta"
        self._worth_it = rows >= LEAST_ROWS
        self._chosen: Encodings | None = None
        self._lock = Lock()

    def encodings(self, rows: pa.Table, options: Mapping[str, Any], sample: Callable[[], pq.FileMetaData]) -> Encodings:
        """How these rows are encoded.

        :param options: how the file is written otherwise: codec, level.
        :param sample: gives the footer of one of the files that are there already.
        """
        with self._lock:
            if self._chosen is None:
                if not self._worth_it or rows.num_rows < _LEAST_SAMPLE:
                    return DICTIONARIES
                self._chosen = choose(rows, options, delta=self._delta or _has_delta(sample()))
            return self._chosen


def _has_delta(footer: pq.FileMetaData) -> bool:
    groups = [footer.row_group(0)] if footer.num_row_groups else []
    return any(
        encoding.startswith("DELTA")
        for group in groups
        for number in range(group.num_columns)
        for encoding in group.column(number).encodings
    )


def choose(rows: pa.Table, options: Mapping[str, Any], *, delta: bool) -> Encodings:
    """Try the columns on a sample from the midst of a row group.

    :param options: how the file is written otherwise: codec, level.
    :param delta: delta encodings may be used.
    """
    sample = rows.slice(max(0, (rows.num_rows - SAMPLE_ROWS) // 2), SAMPLE_ROWS)
    flat = [field.name for field in rows.schema if not pa.types.is_nested(field.type)]
    sample = pa.table([_decoded(sample.column(name)) for name in flat], names=flat)
    plain, with_dictionary = _trial(sample, options, False), _trial(sample, options, True)
    encodings = {name: kind for name in flat if (kind := _delta_for(sample.schema.field(name).type))} if delta else {}
    with_delta = _trial(sample.select(list(encodings)), options, False, encodings)
    chosen_plain, chosen_delta = set(), {}
    for name in flat:
        dictionary_page, pages = with_dictionary[name]
        share = sample.num_rows / rows.num_rows
        if dictionary_page and share < 1 and _saturates(sample.column(name)):
            dictionary_page *= share
        least = sum(plain[name])
        if name in with_delta and sum(with_delta[name]) < least:
            least = sum(with_delta[name])
            chosen_delta[name] = encodings[name]
        if dictionary_page and dictionary_page + pages < _DICTIONARY_GAIN * least:
            chosen_delta.pop(name, None)
        else:
            chosen_plain.add(name)
    chosen_plain -= chosen_delta.keys()
    levels = {}
    if options.get("compression") == "zstd" and options.get("compression_level") is None:
        sizes = {name: plain[name] for name in chosen_plain} | {name: with_delta[name] for name in chosen_delta}
        levels = _levels(sample, options, chosen_delta, {name: sum(parts) for name, parts in sizes.items()})
    log.debug("no dictionary for %s; delta for %s; levels: %s", sorted(chosen_plain), sorted(chosen_delta), levels)
    return Encodings(frozenset(chosen_plain), chosen_delta, levels)


def _levels(
    sample: pa.Table, options: Mapping[str, Any], delta: Mapping[str, str], sizes: Mapping[str, float]
) -> dict[str, int]:
    """Levels of zstd for columns without a dictionary, as far as another than the usual one suits them.

    :param delta: those in a delta encoding, and in which.
    :param sizes: compressed bytes of each of them at the usual level.
    """
    fast, hard = (
        _trial(sample.select(list(sizes)), {**options, "compression_level": level}, False, delta)
        for level in (_FAST_LEVEL, _HARD_LEVEL)
    )
    found = {}
    for name, usual in sizes.items():
        if sum(fast[name]) <= usual:
            found[name] = _FAST_LEVEL
        if sum(hard[name]) < _LEVEL_GAIN * min(usual, sum(fast[name])):
            found[name] = _HARD_LEVEL
    return found


def columns_of_few_values(footer: pq.FileMetaData) -> frozenset[str]:
    """Columns of text or bytes that a file holds as indices into a small dictionary, and that may be read as such.

    Who reads them as dictionaries neither copies their values nor looks them up again to write them.
    """
    groups = [footer.row_group(number) for number in range(min(1, footer.num_row_groups))]
    return frozenset(
        chunk.path_in_schema
        for group in groups
        for chunk in (group.column(number) for number in range(group.num_columns))
        if chunk.physical_type == "BYTE_ARRAY"
        and chunk.has_dictionary_page
        and chunk.total_uncompressed_size <= _SHORT_BYTES * chunk.num_values
    )


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _trial(
    sample: pa.Table, options: Mapping[str, Any], dictionary: bool, encodings: Mapping[str, str] | None = None
) -> dict[str, tuple[float, int]]:
    """Compressed bytes of dictionary page and data pages, by column."""
    if not sample.num_columns:
        return {}
    sink = io.BytesIO()
    pq.write_table(
        sample,
        sink,
        use_dictionary=dictionary,
        column_encoding=dict(encodings) if encodings else None,
        row_group_size=sample.num_rows,
        write_statistics=False,
        **options,
    )
    group = pq.read_metadata(sink).row_group(0)
    found = {}
    for number in range(group.num_columns):
        chunk = group.column(number)
        first = chunk.dictionary_page_offset
        page = chunk.data_page_offset - first if first is not None and first < chunk.data_page_offset else 0
        found[chunk.path_in_schema] = (float(page), chunk.total_compressed_size - page)
    return found


def _saturates(column: pa.ChunkedArray) -> bool:
    if isinstance(column.type, pa.BaseExtensionType):  # UUIDs
        return False
    half = pc.count_distinct(column.slice(0, len(column) // 2)).as_py()
    return bool(pc.count_distinct(column).as_py() < _SATURATED * half)


def _delta_for(kind: pa.DataType) -> str | None:
    types = pa.types
    if types.is_integer(kind) or types.is_date(kind) or types.is_timestamp(kind) or types.is_time(kind):
        return DELTA_INTEGERS
    if types.is_decimal(kind) and kind.precision <= 18:  # stored as an integer
        return DELTA_INTEGERS
    if types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        return DELTA_STRINGS
    return None


def _leaves(schema: pa.Schema) -> Sequence[str]:
    """Paths of the leaf columns, as files have them."""
    sink = io.BytesIO()
    pq.ParquetWriter(sink, schema).close()
    columns = pq.read_metadata(sink).schema
    return [columns.column(number).path for number in range(len(columns))]
