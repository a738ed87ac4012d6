"""Promises 5 and 6: whose files stand where, and under which spelling."""

from __future__ import annotations

import gzip
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from harness.tables import (
    SCHEMA,
    append_files,
    context_for,
    create_table,
    lake,
    local_path,
    missing_files,
    request_for,
    rows_digest,
    small_files,
    stored_files,
    table_ref,
)
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from airflow_provider_floe.engines.base import TableLocation
from airflow_provider_floe.engines.local import orphans
from airflow_provider_floe.errors import UnsafeLocation
from airflow_provider_floe.iceberg import file_comparison
from airflow_provider_floe.iceberg.orphan_search import own_prefixes
from airflow_provider_floe.policies.model import OrphanCleanup
from airflow_provider_floe.tables import Operation


def old(table: Table) -> Path:
    """An orphan in a table all of whose files are old."""
    path = local_path(table.location()) / "data" / "lost.parquet"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"stray")
    for file in stored_files(table):
        os.utime(file, (time.time(), time.time() - 10 * 86_400))
    return path


def location_of(table: Table, *prefixes: str) -> TableLocation:
    return TableLocation(table_ref(table), str(table.metadata.table_uuid), prefixes or own_prefixes(table))


def run(table: Table, *others: TableLocation, **settings: Any) -> None:
    request = request_for(table, Operation.REMOVE_ORPHAN_FILES, OrphanCleanup(**settings))
    orphans.run(request, context_for(table, others=others), 0)


@pytest.mark.parametrize("where", ["{0}", "{0}/nested", "{1}", "{0}/../events"])
def test_promise_5_refuses_overlapping_tables(tmp_path: Path, where: str) -> None:
    catalog = lake(tmp_path)
    table = small_files(catalog, 1)
    lost = old(table)
    place = where.format(table.location(), table.location().rsplit("/", 1)[0])
    other = catalog.create_table("db.other", schema=SCHEMA, location=place)
    with pytest.raises(UnsafeLocation, match=r"lake\.db\.other"):
        run(table, location_of(other))
    assert lost.exists()


@pytest.mark.parametrize("name", ["write.data.path", "write.metadata.path", "write.object-storage.path"])
def test_promise_5_refuses_write_paths_of_others(tmp_path: Path, name: str) -> None:
    catalog = lake(tmp_path)
    table = small_files(catalog, 1)
    lost = old(table)
    other = create_table(catalog, "other", properties={name: f"{table.location()}/shared"})
    with pytest.raises(UnsafeLocation, match=r"shared of lake\.db\.other lies inside"):
        run(table, location_of(other))
    assert lost.exists()


def test_promise_5_a_neighbour_with_a_longer_name_is_no_overlap(tmp_path: Path) -> None:
    catalog = lake(tmp_path)
    table = small_files(catalog, 1)
    lost = old(table)
    run(table, location_of(small_files(catalog, 1, name="events_2")))
    assert not lost.exists()


def test_promise_5_refuses_while_a_tables_place_is_unknown(tmp_path: Path) -> None:
    catalog = lake(tmp_path)
    table = small_files(catalog, 1)
    lost = old(table)
    broken = TableLocation(table_ref(create_table(catalog, "broken")), None, ())
    with pytest.raises(UnsafeLocation, match=r"lake\.db\.broken"):
        run(table, broken)
    assert lost.exists()


def renamed_and_created_again(catalog: SqlCatalog) -> tuple[Table, Table]:
    first = small_files(catalog, 2)
    catalog.rename_table("db.events", "db.events_old")
    second = small_files(catalog, 1)
    assert first.location() == second.location()
    return catalog.load_table("db.events_old"), second


def test_promise_5_a_table_renamed_and_created_again(tmp_path: Path) -> None:
    renamed, table = renamed_and_created_again(lake(tmp_path))
    lost = old(table)
    with pytest.raises(UnsafeLocation, match=r"events_old equals"):
        run(table, location_of(renamed))
    assert lost.exists()
    assert missing_files(renamed) == []


def test_promise_5_a_foreign_uuid_in_metadata(tmp_path: Path) -> None:
    """The other table is in a catalog that we do not know of."""
    renamed, table = renamed_and_created_again(lake(tmp_path))
    lost = old(table)
    for settings in ({}, {"location": f"{table.location()}/data"}):
        with pytest.raises(UnsafeLocation, match=str(renamed.metadata.table_uuid)):
            run(table, **settings)
    assert lost.exists()
    assert len(rows_digest(renamed)) == 20


def test_promise_5_a_foreign_uuid_in_compressed_metadata(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 1)
    lost = old(table)
    foreign = "0b1c7c52-5a3d-4a6e-9a47-3d2f6f2a7c11"
    padding = " " * 100_000
    text = f'{{"properties": {{"comment": "{padding}"}}, "table-uuid" : "{foreign}"}}'
    for name, content in (("7.gz.metadata.json", gzip.compress(text.encode())), ("8.metadata.json", text.encode())):
        path = local_path(table.location()) / "metadata" / name
        path.write_bytes(content)
        with pytest.raises(UnsafeLocation, match=foreign):
            run(table)
        path.unlink()
    assert lost.exists()


def test_promise_5_own_old_and_broken_metadata_is_not_foreign(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path), properties={"write.metadata.previous-versions-max": "1"})
    append_files(table, 3)
    lost = old(table)
    (local_path(table.location()) / "metadata" / "00009-half-written.metadata.json").write_text('{"format-ver')
    run(table)
    assert not lost.exists()


@pytest.mark.parametrize("place", ["{0}/..", "{0}-2", "file:///", "/"])
def test_only_the_tables_own_folders_are_cleaned(tmp_path: Path, place: str) -> None:
    table = small_files(lake(tmp_path), 1)
    lost = old(table)
    with pytest.raises(UnsafeLocation, match="location"):
        run(table, location=place.format(table.location()))
    assert lost.exists()


def spelled(table: Table, scheme: str) -> Path:
    """Everything that the table references is spelled with another scheme than its location; returns an orphan."""
    referenced = local_path(table.location())
    lost = old(table)
    with table.transaction() as transaction:
        transaction.set_properties({"py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO"})
    metadata = local_path(table.metadata_location)
    text = metadata.read_text().replace(f'"location":"file://{referenced}"', f'"location":"{scheme}{referenced}"')
    metadata.write_text(text)
    return lost


def test_promise_6_local_spellings_are_one(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 2)
    lost = spelled(table, "")
    table.refresh()
    assert table.location().startswith("/")
    run(table)
    assert not lost.exists()
    assert missing_files(table) == []


class TestMismatch:
    """The table's files are referenced as ``viewfs://one/...``, storage lists them as ``file://...``."""

    @pytest.fixture
    def table(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
        table = small_files(lake(tmp_path), 2)
        real = file_comparison.Comparison.add_referenced

        def add_referenced(self: Any, files: Any) -> None:
            real(self, ((file._replace(path=elsewhere(file.path)), known) for file, known in files))

        def elsewhere(path: str) -> str:
            return path.replace("file://", "viewfs://one") if path.endswith(".parquet") else path

        monkeypatch.setattr(file_comparison.Comparison, "add_referenced", add_referenced)
        return table

    def test_promise_6_a_mismatch_is_an_error(self, table: Table) -> None:
        lost = old(table)
        with pytest.raises(UnsafeLocation, match="2 files are referenced with another scheme"):
            run(table)
        assert lost.exists()
        assert missing_files(table) == []

    def test_ignore_keeps_them(self, table: Table) -> None:
        lost = old(table)
        run(table, prefix_mismatch_mode="IGNORE")
        assert not lost.exists()
        assert missing_files(table) == []

    def test_declared_equal_they_match(self, table: Table) -> None:
        lost = old(table)
        run(table, equal_schemes={"viewfs": "file"}, equal_authorities={"one": ""})
        assert not lost.exists()
        assert missing_files(table) == []

    def test_delete_removes_them_as_in_spark(self, table: Table) -> None:
        old(table)
        run(table, prefix_mismatch_mode="DELETE")
        assert len(missing_files(table)) == 2


def test_a_symlinked_folder_is_not_followed(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 1)
    lost = old(table)
    outside = tmp_path / "outside"
    outside.mkdir()
    precious = outside / "precious.parquet"
    precious.write_bytes(b"1")
    os.utime(precious, (0, 0))
    (local_path(table.location()) / "data" / "link").symlink_to(outside)
    run(table)
    assert precious.exists()
    assert not lost.exists()
    shutil.rmtree(outside)
