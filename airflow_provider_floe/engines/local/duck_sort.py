"""DuckDB's external sort, for ranges of rows that only whole values tell apart: long texts that begin alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from airflow_provider_floe.engines.local.duck import connect
from airflow_provider_floe.engines.local.reader import BATCH_ROWS
from airflow_provider_floe.engines.local.sort_keys import SortTerm, exact_columns, storage

_KEY = "floe_order_key_"


def sorted_by_duckdb(
    rows: Iterator[pa.RecordBatch], terms: Sequence[SortTerm], memory_bytes: int
) -> Iterator[pa.RecordBatch]:
    """The rows in their order; those that compare equal in any."""
    first = next(rows)
    wanted = first.schema
    # DuckDB would turn UUIDs into text: they pass through as the bytes that they are stored as.
    stored = pa.schema([pa.field(f"column_{number}", _storage(one.type)) for number, one in enumerate(wanted)])
    by: list[str] = []

    def keyed(batch: pa.RecordBatch) -> pa.RecordBatch:
        result = pa.RecordBatch.from_arrays([_plain(column) for column in batch.columns], schema=stored)
        by.clear()
        for term in terms:
            for column, how in exact_columns(batch.column(term.column), term):
                by.append(f"{_KEY}{len(by)} {how} NULLS {'FIRST' if term.nulls_first else 'LAST'}")
                result = result.append_column(f"{_KEY}{len(by) - 1}", column)
        return result

    keyed_first = keyed(first)

    def incoming() -> Iterator[pa.RecordBatch]:
        yield keyed_first
        yield from map(keyed, rows)

    with connect(memory_bytes) as duck:
        duck.register("incoming", pa.RecordBatchReader.from_batches(keyed_first.schema, incoming()))
        columns = ", ".join(stored.names)
        query = duck.sql(f"SELECT {columns} FROM incoming ORDER BY {', '.join(by)}")
        for batch in query.to_arrow_reader(BATCH_ROWS):
            arrays = [_as(column, one.type) for column, one in zip(batch.columns, wanted, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, schema=wanted)


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else storage(column)


def _storage(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return kind.value_type
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _as(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    if pa.types.is_dictionary(kind):
        return column.cast(kind.value_type).dictionary_encode()
    plain = column.cast(_storage(kind))
    return kind.wrap_array(plain) if isinstance(kind, pa.BaseExtensionType) else plain
