"""Puts the rows of a file group into the order that the settings ask for; DuckDB sorts, and spills to disk."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.sorting import NullOrder, SortDirection
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import NestedField

from airflow_provider_floe.engines.local.duck import connect
from airflow_provider_floe.engines.local.pyiceberg_adapter import ParquetLayout
from airflow_provider_floe.engines.local.reader import BATCH_ROWS, project
from airflow_provider_floe.errors import ConfigurationError, UnsupportedSetting
from airflow_provider_floe.iceberg.selection import FileGroup
from airflow_provider_floe.policies.model import RewriteDataFiles

KEY = "floe_order_key"
"""Column that holds a row's place on the z-order curve while rows are sorted."""
_KEY_BITS = 60
_MOST_BITS = 12
_SAMPLE_ROWS = 100_000
_SAMPLE_FILES = 64
"""Of so many files at least, and of less than twice as many, where a group has more."""

_TERM = re.compile(
    r"^\s*(?:`(?P<quoted>[^`]+)`|(?P<plain>[^\s`]+))(?:\s+(?P<direction>ASC|DESC))?(?:\s+NULLS\s+(?P<nulls>FIRST|LAST))?\s*$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class SortTerm:
    """One column to sort by."""

    column: str
    descending: bool
    nulls_first: bool


@dataclass(frozen=True)
class Ordering:
    """What to order by: terms, or columns of a z-order curve; neither means that rows stay in file order.

    :ivar sort_order_id: the table's own order when the rows follow it.
    """

    terms: tuple[SortTerm, ...] = ()
    z_columns: tuple[NestedField, ...] = ()
    sort_order_id: int | None = None


def ordering_of(table: Table, settings: RewriteDataFiles) -> Ordering:
    """The order that the settings ask for.

    :raises ConfigurationError: for a term that cannot be read, an unknown column, or no order at all.
    :raises UnsupportedSetting: for a table order with transforms, and columns that cannot be compared.
    """
    if settings.strategy == "SORT":
        if settings.sort_order:
            return Ordering(tuple(_term(table, text) for text in settings.sort_order))
        return Ordering(_table_terms(table), sort_order_id=table.metadata.sort_order().order_id)
    if settings.strategy == "ZORDER":
        columns = tuple(_column(table, name, "zOrderColumns") for name in settings.z_order_columns)
        if _KEY_BITS // len(columns) < 2:
            raise UnsupportedSetting(
                f"setting zOrderColumns: {len(columns)} columns are too many to order by, use 4 or less"
            )
        return Ordering(z_columns=columns)
    return Ordering()


def ordered(
    table: Table,
    layout: ParquetLayout,
    ordering: Ordering,
    group: FileGroup,
    partition: Record,
    rows: Iterator[pa.RecordBatch],
    memory_bytes: int,
) -> Iterator[pa.RecordBatch]:
    """The rows in the order asked for."""
    if ordering.terms:
        by = ", ".join(
            f"{_quoted(layout.file_name(term.column))} {'DESC' if term.descending else 'ASC'} "
            f"NULLS {'FIRST' if term.nulls_first else 'LAST'}"
            for term in ordering.terms
        )
        return _sorted(rows, layout.arrow, by, layout.arrow, memory_bytes)
    if ordering.z_columns:
        curve = ZCurve.sample(table, group, partition, ordering.z_columns)
        names = [layout.file_name(field.name) for field in ordering.z_columns]
        keyed = layout.arrow.append(pa.field(KEY, pa.uint64()))
        return _sorted(
            (batch.append_column(KEY, curve.keys(batch, names)) for batch in rows),
            keyed,
            KEY,
            layout.arrow,
            memory_bytes,
        )
    return rows


class ZCurve:
    """Places rows on a z-order curve by quantiles of a sample, so that any ordered type takes part evenly."""

    def __init__(self, bounds: Sequence[Any], bits: int) -> None:
        self._bounds = bounds
        self._bits = bits
        # Where the bits of each rank of the last column lie; those of the columns before it lie one higher each.
        ranks = np.arange(2**bits, dtype=np.uint64)
        self._spread = np.zeros(2**bits, dtype=np.uint64)
        for bit in range(bits):
            self._spread |= ((ranks >> np.uint64(bit)) & np.uint64(1)) << np.uint64(bit * len(bounds))

    @classmethod
    def sample(cls, table: Table, group: FileGroup, partition: Record, columns: Sequence[NestedField]) -> ZCurve:
        """Quantiles of every n-th row of files evenly spread over the group, the columns alone read."""
        bits = min(_MOST_BITS, _KEY_BITS // len(columns))
        filled = [file for file in group.files if file.record_count]
        sampled = filled[:: max(1, len(filled) // _SAMPLE_FILES)]
        step = max(1, sum(file.record_count for file in sampled) // _SAMPLE_ROWS)
        samples: list[list[Any]] = [[] for _ in columns]
        row = 0
        for file in sampled:
            for batch in project(table.metadata, table.io, file, partition, Schema(*columns)):
                chosen = pa.array(range(-row % step, batch.num_rows, step), pa.int64())
                row += batch.num_rows
                for sample, column in zip(samples, batch.columns, strict=True):
                    sample.append(_comparable(column.take(chosen).drop_null()))
        return cls([_quantiles(sample, 2**bits - 2) for sample in samples], bits)

    def keys(self, batch: pa.RecordBatch, names: Sequence[str]) -> pa.Array:
        """The place of each row: the bits of its quantiles, one column after the other; NULL comes first."""
        key = np.zeros(batch.num_rows, dtype=np.uint64)
        width = len(names)
        for number, (name, bounds) in enumerate(zip(names, self._bounds, strict=True)):
            column = batch.column(name)
            valid = pc.is_valid(column).to_numpy(zero_copy_only=False)
            rank = np.zeros(batch.num_rows, dtype=np.intp)
            quantile = np.searchsorted(bounds, _comparable(column.drop_null()))
            # Spread over all bits: a column of few values must not lie in a corner of the curve.
            rank[valid] = 1 + quantile * (2**self._bits - 2) // max(1, len(bounds))
            key |= self._spread[rank] << np.uint64(width - 1 - number)
        return pa.array(key)


def _sorted(
    rows: Iterator[pa.RecordBatch], schema: pa.Schema, by: str, wanted: pa.Schema, memory_bytes: int
) -> Iterator[pa.RecordBatch]:
    # DuckDB would turn UUIDs into text: they pass through as the bytes that they are stored as.
    stored = pa.schema([field.with_type(_storage(field.type)) for field in schema])
    failures: list[BaseException] = []

    def stripped() -> Iterator[pa.RecordBatch]:
        try:
            for batch in rows:
                yield pa.RecordBatch.from_arrays([_stored(column) for column in batch.columns], schema=stored)
        except BaseException as error:
            failures.append(error)
            raise

    with connect(memory_bytes) as duck:
        duck.register("incoming", pa.RecordBatchReader.from_batches(stored, stripped()))
        columns = ", ".join(_quoted(name) for name in wanted.names)
        try:
            for batch in duck.sql(f"SELECT {columns} FROM incoming ORDER BY {by}").to_arrow_reader(BATCH_ROWS):
                arrays = [_as(column, field.type) for column, field in zip(batch.columns, wanted, strict=True)]
                yield pa.RecordBatch.from_arrays(arrays, schema=wanted)
        except Exception:
            if failures:  # DuckDB reports what its input raised as an error of its own
                raise failures[0] from None
            raise


def _storage(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _stored(column: pa.Array) -> pa.Array:
    return column.storage if isinstance(column.type, pa.BaseExtensionType) else column


def _as(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    plain = column.cast(_storage(kind))
    return kind.wrap_array(plain) if isinstance(kind, pa.BaseExtensionType) else plain


def _table_terms(table: Table) -> tuple[SortTerm, ...]:
    order = table.metadata.sort_order()
    if not order.fields:
        raise ConfigurationError(
            f"strategy SORT without sortOrder: {'.'.join(table.name())} has no sort order of its own; give sortOrder"
        )
    terms = []
    for field in order.fields:
        name = table.schema().find_column_name(field.source_id)
        if not isinstance(field.transform, IdentityTransform) or name is None:
            raise UnsupportedSetting(
                f"setting strategy=SORT: the table's sort order uses {field.transform}({name}), which the local engine "
                "does not compute: give sortOrder, or use engine spark"
            )
        _column(table, name, "sort order")
        terms.append(SortTerm(name, field.direction == SortDirection.DESC, field.null_order == NullOrder.NULLS_FIRST))
    return tuple(terms)


def _term(table: Table, text: str) -> SortTerm:
    found = _TERM.match(text)
    if found is None:
        raise ConfigurationError(
            f"sortOrder {text!r}: write a column, then ASC or DESC, then NULLS FIRST or NULLS LAST"
        )
    name = found["quoted"] or found["plain"]
    descending = (found["direction"] or "ASC").upper() == "DESC"
    nulls = (found["nulls"] or ("LAST" if descending else "FIRST")).upper()
    return SortTerm(_column(table, name, "sortOrder").name, descending, nulls == "FIRST")


def _column(table: Table, name: str, setting: str) -> NestedField:
    for field in table.schema().fields:
        if field.name == name:
            if not field.field_type.is_primitive:
                raise UnsupportedSetting(
                    f"setting {setting}: column {name} is a {field.field_type}, which has no order"
                )
            return field
    known = ", ".join(field.name for field in table.schema().fields)
    raise ConfigurationError(f"{setting} {name!r} is no column of {'.'.join(table.name())}: use one of {known}")


def _comparable(column: Any) -> Any:
    """Values without NULLs as a numpy array that compares as Iceberg does."""
    column = _stored(column)
    if pa.types.is_temporal(column.type):
        column = column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64())
    values = column.to_numpy(zero_copy_only=False)
    return values.astype(object) if values.dtype.kind in "OUS" else values


def _quantiles(sample: Sequence[Any], most: int) -> Any:
    values = np.sort(np.concatenate(sample)) if sample else np.empty(0)
    places = np.linspace(0, len(values), num=most + 1, endpoint=False, dtype=np.int64)[1:]
    return np.unique(values[places]) if len(values) else values


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
