"""Rewrites on an S3 store: row groups copied through this process, small objects fetched whole, and failures."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import obstore
import pytest
from harness.services.running import use
from harness.services.s3 import file_io_properties
from harness.tables import append_files, context_for, create_table, data_files, request_for, rows_digest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from airflow_provider_floe.engines.base import OperationResult
from airflow_provider_floe.engines.local import raw_copy, read_ahead, rewrite_data
from airflow_provider_floe.iceberg.listing import list_files
from airflow_provider_floe.policies.model import RewriteDataFiles
from airflow_provider_floe.tables import Operation

pytestmark = pytest.mark.services

MEMORY = 256 * 1024**2


@pytest.fixture(scope="module")
def store() -> Iterator[dict[str, Any]]:
    with use("s3") as facts:
        yield facts["s3"]


@pytest.fixture
def catalog(tmp_path: Path, store: dict[str, Any]) -> SqlCatalog:
    warehouse = f"s3://{store['bucket']}/{uuid4().hex}"
    uri = f"sqlite:///{tmp_path}/catalog.db"
    found = SqlCatalog("s3", uri=uri, warehouse=warehouse, **file_io_properties(store))
    found.create_namespace("db")
    return found


def rewrite(table: Table, **settings: Any) -> OperationResult:
    request = request_for(table, Operation.REWRITE_DATA_FILES, RewriteDataFiles(**settings))
    try:
        return rewrite_data.run(request, context_for(table), MEMORY)
    finally:
        table.refresh()


def parquet_files(table: Table) -> int:
    return sum(file.path.endswith(".parquet") for batch in list_files(table.io, table.location()) for file in batch)


def test_row_groups_are_copied_and_read_back(catalog: SqlCatalog, store: dict[str, Any]) -> None:
    table = append_files(create_table(catalog), 4, 2000)
    before = rows_digest(table)
    size = sum(file.file_size_in_bytes for file in data_files(table))
    result = rewrite(table, target_file_size_bytes=size)
    assert result.details["file_groups_copied"] == 1
    (file,) = data_files(table)
    assert file.record_count == 8000
    assert rows_digest(table) == before
    assert not rewrite(table, target_file_size_bytes=size).changed
    data = obstore.get(*read_ahead.s3_store(table.io, file.file_path)).bytes()
    assert len(data) == file.file_size_in_bytes


def test_small_objects_are_fetched_whole_each_once(catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    table = append_files(create_table(catalog), 12)
    before = rows_digest(table)
    fetched: list[str] = []
    real = read_ahead._fetch

    def fetch(io: Any, path: str) -> Any:
        fetched.append(path)
        return real(io, path)

    monkeypatch.setattr(read_ahead, "_fetch", fetch)
    sources = sorted(file.file_path for file in data_files(table))
    assert rewrite(table).changed
    assert sorted(fetched) == sources
    assert rows_digest(table) == before


def test_an_object_that_comes_short_or_not_at_all_is_read_again(
    catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    table = append_files(create_table(catalog), 6)
    before = rows_digest(table)
    short, gone = (file.file_path for file in data_files(table)[:2])
    real = read_ahead._fetch

    def fetch(io: Any, path: str) -> Any:
        if path == gone:
            raise obstore.exceptions.GenericError("503 Slow Down")
        data = real(io, path)
        return data[: len(data) // 2] if path == short else data

    monkeypatch.setattr(read_ahead, "_fetch", fetch)
    with caplog.at_level(logging.INFO):
        assert rewrite(table).changed
    assert rows_digest(table) == before
    assert "reading it again" in caplog.text
    assert "503 Slow Down" in caplog.text


def test_a_copy_that_is_cut_off_leaves_the_table_and_no_file(
    catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = append_files(create_table(catalog), 4, 2000)
    before, stored = rows_digest(table), parquet_files(table)
    size = sum(file.file_size_in_bytes for file in data_files(table))
    real = raw_copy.read_exactly

    def cut_off(stream: Any, offset: int, length: int) -> bytes:
        if offset == 4:
            raise OSError("connection reset by peer")
        return real(stream, offset, length)

    monkeypatch.setattr(raw_copy, "read_exactly", cut_off)
    with pytest.raises(OSError, match="connection reset"):
        rewrite(table, target_file_size_bytes=size)
    assert rows_digest(table) == before
    assert parquet_files(table) == stored
