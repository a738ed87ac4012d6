from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.store_documents import NOON, execution
from harness.store_processes import SharedStoreContract, together

from airflow_provider_floe.errors import ConfigurationError, StoreUnavailable
from airflow_provider_floe.stores.open import open_store
from airflow_provider_floe.stores.protocols import FloeStore, SlotOutcome


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "floe.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def store(url: str) -> Iterator[FloeStore]:
    opened = open_store(url)
    yield opened
    opened.close()


class TestSqliteFile(SharedStoreContract):
    def test_it_is_shared_and_says_where_it_is(self, store: FloeStore, path: Path) -> None:
        assert store.shared
        assert store.describe() == f"SQLite file {path}, schema version 2"

    def test_only_this_user_may_read_what_it_creates(self, store: FloeStore, path: Path) -> None:
        store.record_slot(execution(NOON, SlotOutcome.EXECUTED))
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}

    def test_readers_do_not_wait_for_a_writer(self, store: FloeStore, url: str) -> None:
        reader = open_store(url)
        with store.transaction():
            store.record_slot(execution(NOON, SlotOutcome.EXECUTED))
            assert reader.operations() == []
        reader.close()

    def test_what_is_reported_survives_power_loss(self, store: FloeStore) -> None:
        with store._database.read() as connection:  # type: ignore[attr-defined]
            full = 2
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == full
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"

    @pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to see open files")
    def test_no_open_file_crosses_a_fork(self, store: FloeStore, path: Path) -> None:
        store.now()
        assert str(path) in _open_files()
        assert all(str(path) not in files for files in together("fork", _open_files))


def _open_files() -> set[str]:
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return found


def test_what_is_no_database_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("dear diary, " * 100)
    with pytest.raises(ConfigurationError, match=r"notes\.txt is damaged or no database: file is not a database"):
        open_store(f"sqlite:///{file}")
    assert file.read_text() == "dear diary, " * 100


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="choose a path"):
        open_store(f"sqlite:///{tmp_path}")


def test_losing_the_file_is_reported_with_what_to_check(store: FloeStore, path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("DROP TABLE floe_slots")
    other.close()
    with pytest.raises(StoreUnavailable, match=r"floe\.db did not answer: .*Check that the folder") as caught:
        store.record_slot(execution(NOON, SlotOutcome.EXECUTED))
    assert caught.value.retryable
