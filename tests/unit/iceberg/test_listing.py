from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.io import FileIO
from pyiceberg.io.fsspec import FsspecFileIO
from pyiceberg.io.pyarrow import PyArrowFileIO

from airflow_provider_floe.errors import UnsafeOperation
from airflow_provider_floe.iceberg import listing
from airflow_provider_floe.iceberg.listing import ListedFile, delete_files, file_size, in_batches, list_files, move_file
from airflow_provider_floe.iceberg.object_stores import s3_store

NAMES = ["data/a.parquet", "data/p=a%2Fb/x y.parquet", "data/é+c/h#1.parquet", "metadata/.hidden", "_x/y"]
KEYS = {"s3.access-key-id": "a", "s3.secret-access-key": "b", "s3.region": "eu-west-1"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "t"
    for size, name in enumerate(NAMES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * size)
        os.utime(root / name, (0, 1_700_000_000 + size))
    (root / "empty folder").mkdir()
    return root


def listed(io: FileIO, prefix: str) -> list[ListedFile]:
    return sorted(file for batch in list_files(io, prefix) for file in batch)


@pytest.mark.parametrize("form", ["{}", "file:{}", "file://{}", "file://{}/"])
def test_lists_files_with_size_and_time_in_the_spelling_asked_for(tree: Path, form: str) -> None:
    prefix = form.format(tree)
    assert listed(PyArrowFileIO(), prefix) == sorted(
        ListedFile(f"{prefix.rstrip('/')}/{name}", size, datetime.fromtimestamp(1_700_000_000 + size, UTC))
        for size, name in enumerate(NAMES)
    )


@pytest.mark.parametrize("io", [PyArrowFileIO(), FsspecFileIO({})], ids=["pyarrow", "fsspec"])
def test_every_way_to_list_finds_the_same(tree: Path, io: FileIO, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = listed(PyArrowFileIO(), f"file://{tree}")
    monkeypatch.setattr(listing, "local_path", lambda io, path: None)
    assert listed(io, f"file://{tree}") == expected
    delete_files(io, [f"file://{tree}/{NAMES[0]}", f"file://{tree}/never"])
    assert not (tree / NAMES[0]).exists()


def test_a_name_with_a_hash_is_not_taken_for_another_file(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "local_path", lambda io, path: None)
    precious = tree / "data/é+c/h"
    precious.write_bytes(b"precious")
    assert file_size(PyArrowFileIO(), f"file://{precious}#1.parquet") == 2
    move_file(PyArrowFileIO(), f"file://{precious}#1.parquet", f"file://{tree}/aside#2")
    assert (tree / "aside#2").read_bytes() == b"xx"
    delete_files(PyArrowFileIO(), [f"file://{tree}/aside#2", f"file://{precious}?1"])
    assert not (tree / "aside#2").exists()
    assert precious.read_bytes() == b"precious"
    assert file_size(PyArrowFileIO(), f"file://{tree}/aside#2") is None


def test_a_name_with_brackets_is_not_taken_for_a_glob(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "local_path", lambda io, path: None)
    for io in (FsspecFileIO({}), PyArrowFileIO()):
        for name in ("x1", "x[1]", "x*"):
            (tree / name).write_bytes(b"1")
        delete_files(io, [f"file://{tree}/x[1]", f"file://{tree}/x*"])
        assert [path.name for path in tree.iterdir() if path.name[0] == "x"] == ["x1"]


def test_a_store_that_does_not_tell_the_time(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "local_path", lambda io, path: None)
    monkeypatch.setattr(listing, "_FSSPEC_TIMES", ())
    assert {file.modified for file in listed(FsspecFileIO({}), f"file://{tree}")} == {None}


def test_a_file_io_that_cannot_list_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class OwnIO(PyArrowFileIO):
        pass

    monkeypatch.setattr(listing, "PyArrowFileIO", FsspecFileIO)
    with pytest.raises(UnsafeOperation, match="OwnIO cannot list"):
        listed(OwnIO(), "gs://bucket/t")


def test_a_missing_prefix_has_no_files_and_a_forbidden_folder_is_an_error(tree: Path) -> None:
    assert listed(PyArrowFileIO(), f"{tree}/nowhere") == []
    file = f"{tree}/{NAMES[0]}"
    with pytest.raises(NotADirectoryError):
        listed(PyArrowFileIO(), file)


def test_symlinked_folders_are_not_followed(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "f").write_bytes(b"1")
    (tree / "link").symlink_to(tmp_path / "elsewhere")
    (tree / "loop").symlink_to(tree)
    assert len(listed(PyArrowFileIO(), str(tree))) == len(NAMES)


def test_move_makes_folders_and_the_file_young(tree: Path) -> None:
    source, target = f"file://{tree}/{NAMES[1]}", f"file:{tree}/aside/op/{NAMES[1]}"
    move_file(PyArrowFileIO(), source, target)
    moved = tree / "aside/op" / NAMES[1]
    assert moved.read_bytes() == b"x"
    assert moved.stat().st_mtime > 1_700_100_000
    assert not (tree / NAMES[1]).exists()
    with pytest.raises(FileNotFoundError):
        move_file(PyArrowFileIO(), source, target)


def test_move_by_copying_where_storage_cannot_rename(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "local_path", lambda io, path: None)
    move_file(PyArrowFileIO(), f"file://{tree}/{NAMES[3]}", f"file://{tree}/aside")
    assert (tree / "aside").read_bytes() == b"xxx"
    assert not (tree / NAMES[3]).exists()


@settings(max_examples=30)
@given(st.integers(0, 50), st.integers(1, 10))
def test_batches_hold_everything_in_order(count: int, size: int) -> None:
    batches = list(in_batches(range(count), size))
    assert [item for batch in batches for item in batch] == list(range(count))
    assert all(0 < len(batch) <= size for batch in batches)


def test_s3_properties_are_handed_over() -> None:
    found = s3_store(PyArrowFileIO({**KEYS, "s3.endpoint": "http://localhost:9000"}), "s3a://bucket/t/a%20b/f")
    assert found is not None
    store, key = found
    assert key == "t/a%20b/f"
    assert store.config["endpoint"] == "http://localhost:9000"
    assert store.config["region"] == "eu-west-1"
    assert store.client_options is not None
    assert store.client_options["allow_http"] in (True, "true")


@pytest.mark.parametrize(
    "properties",
    [
        {"s3.region": "eu-west-1"},
        {**KEYS, "s3.role-arn": "arn:aws:iam::1:role/r"},
        {**KEYS, "s3.signer": "S3V4RestSigner"},
        {"s3.access-key-id": "a", "s3.secret-access-key": "b"},
    ],
    ids=["default chain", "role", "remote signing", "unknown region"],
)
def test_credentials_that_only_the_file_io_knows_are_left_to_it(
    properties: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    assert s3_store(PyArrowFileIO(properties), "s3://bucket/t") is None
    assert s3_store(PyArrowFileIO(KEYS), "gs://bucket/t") is None
