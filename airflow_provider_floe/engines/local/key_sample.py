"""Samples columns of a file group: of files evenly spread over it, and of row groups evenly spread over each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.typedef import Record
from pyiceberg.types import NestedField

from airflow_provider_floe.engines.local.pyiceberg_adapter import ParquetLayout
from airflow_provider_floe.engines.local.reader import BATCH_ROWS, project
from airflow_provider_floe.iceberg.selection import FileGroup

SAMPLE_ROWS = 100_000
_FILES = 64
"""Of so many files at least, and of less than twice as many, where a group has more; fewer files, more row groups."""


def sample_columns(
    table: Table, layout: ParquetLayout, group: FileGroup, partition: Record, columns: Sequence[NestedField]
) -> list[Any]:
    """Every n-th value of columns of the table, as Arrow arrays in the types of the files that are written."""
    wanted = [layout.arrow.field(layout.file_name(column.name)) for column in columns]
    filled = [file for file in group.files if file.record_count]
    files = filled[:: max(1, len(filled) // _FILES)]
    step = max(1, sum(file.record_count for file in files) // SAMPLE_ROWS)
    samples: list[list[Any]] = [[pa.array([], field.type)] for field in wanted]
    for file in files:
        with table.io.new_input(file.path).open() as stream:
            parquet = pq.ParquetFile(stream)
            names = _names(parquet.schema_arrow, wanted)
            if names is None:
                batches, share = project(table.metadata, table.io, file, partition, Schema(*columns)), 1.0
            else:
                groups = _spread(parquet.metadata, max(1, _FILES // len(files)))
                found = parquet.iter_batches(BATCH_ROWS, row_groups=groups, columns=names, use_threads=False)
                batches = (batch.select(names) for batch in found)
                share = sum(parquet.metadata.row_group(one).num_rows for one in groups) / file.record_count
            for sample, chosen in zip(samples, _every(batches, max(1, int(step * share)), len(wanted)), strict=True):
                sample.extend(chosen)
    return [
        pa.concat_arrays([part.cast(field.type) for part in parts])
        for field, parts in zip(wanted, samples, strict=True)
    ]


def _every(batches: Iterator[pa.RecordBatch], step: int, width: int) -> list[list[Any]]:
    columns: list[list[Any]] = [[] for _ in range(width)]
    seen = 0
    for batch in batches:
        chosen = pa.array(np.arange(-seen % step, batch.num_rows, step))
        seen += batch.num_rows
        for column, values in zip(columns, batch.columns, strict=True):
            column.append(values.take(chosen))
    return columns


def _names(found: pa.Schema, wanted: Sequence[pa.Field]) -> list[str] | None:
    """The columns' names in a file that has them as they are wanted; None: they have to be projected."""
    ids = {(field.metadata or {}).get(b"PARQUET:field_id"): field for field in found}
    fields = [ids.get((field.metadata or {})[b"PARQUET:field_id"]) for field in wanted]
    if any(
        one is None or "." in one.name or (one.type != field.type and not one.type.equals(_short(field.type)))
        for one, field in zip(fields, wanted, strict=True)
    ):
        return None
    return [field.name for field in fields if field is not None]


def _short(kind: pa.DataType) -> pa.DataType:
    """Text and binary, which files may have with offsets of 32 bits."""
    return {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}.get(kind, kind)


def _spread(footer: pq.FileMetaData, most: int) -> list[int]:
    filled = [number for number in range(footer.num_row_groups) if footer.row_group(number).num_rows]
    return filled[:: -(-len(filled) // most)] if filled else []
