from __future__ import annotations

from datetime import UTC, datetime

import pytest

from airflow_provider_floe.iceberg import found_files
from airflow_provider_floe.iceberg.found_files import FoundFiles
from airflow_provider_floe.iceberg.listing import ListedFile

FILES = [
    ListedFile("s3://b/t/data/b.parquet", 3, datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)),
    ListedFile("s3://b/t/data/a b%20.parquet", 0, None),
    ListedFile("s3://b/t/data/ü.parquet", 2**40, datetime(2026, 1, 2, tzinfo=UTC)),
]


@pytest.mark.parametrize("batch", [1, 2, 20_000])
def test_files_come_back_as_they_were_as_often_as_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(found_files, "_ROWS", batch)
    found = FoundFiles(iter(FILES))
    expected = [file for begin in range(0, 3, batch) for file in sorted(FILES[begin : begin + batch])]
    assert (list(found), list(found)) == (expected, expected)
    assert (len(found), found.size_bytes) == (3, 2**40 + 3)


def test_there_may_be_none() -> None:
    found = FoundFiles()
    assert (list(found), len(found), found.size_bytes, bool(found)) == ([], 0, 0, False)
