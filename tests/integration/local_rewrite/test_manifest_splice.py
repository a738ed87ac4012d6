"""Entries copied as bytes: whatever wrote the manifests, each says the same afterwards to readers that are not ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness import version_3
from harness.avro_files import container, number, record, text
from harness.merge_on_read import position_delete
from harness.tables import append_files, create_table, data_files, entries, lake, rows, rows_digest, small_files
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.manifest import ManifestContent, ManifestFile
from pyiceberg.table import Table
from rewriting import rewrite_all_manifests

from airflow_provider_floe.engines.local import rewrite_manifests as module
from airflow_provider_floe.engines.local.manifest_splice import clustered
from airflow_provider_floe.errors import ConfigurationError, TableUnreadable, VerificationFailed
from airflow_provider_floe.iceberg.avro import read_header
from airflow_provider_floe.iceberg.manifest_records import Layout, conversion, layout, layout_of, raw_entries
from airflow_provider_floe.iceberg.manifests import snapshot_manifests


def everything(table: Table) -> list[str]:
    """All that pyiceberg reads of the live entries, but for the status."""
    return sorted(
        repr(
            (
                entry.snapshot_id,
                entry.sequence_number,
                entry.file_sequence_number,
                [_plain(entry.data_file[position]) for position in range(16)],
            )
        )
        for entry in entries(table)
    )


def _plain(value: Any) -> Any:
    if hasattr(value, "items"):
        return sorted(value.items())
    return [*value] if isinstance(value, list | tuple) else value


def layouts(table: Table) -> set[Layout]:
    return {
        layout(Path(one.manifest_path.removeprefix("file://")).read_bytes(), one.manifest_path)
        for one in snapshot_manifests(table)
    }


def test_manifests_of_two_writers_become_one(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3, parts=("a", "b"))
    assert rewrite_all_manifests(table).changed
    append_files(table, 2, start=100, parts=("b", "c"))
    assert len(layouts(table)) == 2
    before, digest = everything(table), rows_digest(table)
    assert rewrite_all_manifests(table).changed
    assert (everything(table), rows_digest(table)) == (before, digest)
    assert len(layouts(table)) == len(snapshot_manifests(table)) == 1


def test_a_layout_that_cannot_be_copied_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = small_files(lake(tmp_path), 3, parts=("a", "b"))
    position_delete(table, {data_files(table)[0].file_path: [0]})
    position_delete(table, {data_files(table)[1].file_path: [0, 3]})
    before = everything(table)
    real = module.conversion
    decoded = []

    def only_ours(source: Layout, target: Layout, row_ids: bool) -> Any:
        if source != target:
            decoded.append(source)
            return None
        return real(source, target, row_ids)

    monkeypatch.setattr(module, "conversion", only_ours)
    assert rewrite_all_manifests(table).changed
    assert everything(table) == before
    assert decoded


def test_a_table_that_was_upgraded_twice_keeps_lineage_and_vectors(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 2, parts=("a", "b"), properties={"format-version": "1"})
    with table.transaction() as transaction:
        transaction.upgrade_table_version(2)
    append_files(table, 1, start=100, parts=("a",))
    version_3.upgrade(table)
    version_3.append(table, rows(200, 10, "b"))
    version_3.append(table, rows(300, 10, "a"))
    version_3.add_vectors(table, {version_3.live(table)[0].path: [1, 2], version_3.live(table)[1].path: [4]})
    version_3.add_vectors(table, {version_3.live(table)[2].path: [5]})
    before, read = version_3.live(table), version_3.rows(table)
    assert len({one.first_row_id for one in before if one.content == 0}) > 2
    assert rewrite_all_manifests(table).changed
    assert sorted(version_3.live(table), key=repr) == sorted(before, key=repr)
    assert version_3.rows(table) == read
    assert len(snapshot_manifests(table)) == 2
    assert not rewrite_all_manifests(table).changed


@pytest.mark.parametrize("codec", ["gzip", "zstd", "null"])
def test_blocks_are_packed_as_the_table_says(tmp_path: Path, codec: str) -> None:
    table = small_files(lake(tmp_path), 3)
    with table.transaction() as transaction:
        transaction.set_properties({"write.avro.compression-codec": codec})
    before = everything(table)
    rewrite_all_manifests(table)
    (manifest,) = snapshot_manifests(table)
    header = read_header(Path(manifest.manifest_path.removeprefix("file://")).read_bytes(), "m")
    assert header.metadata["avro.codec"] == {"gzip": b"deflate", "zstd": b"zstandard"}.get(codec, codec.encode())
    assert header.metadata["content"] == b"data"
    assert everything(table) == before


def test_an_unknown_codec_is_named(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 2)
    with table.transaction() as transaction:
        transaction.set_properties({"write.avro.compression-codec": "lzma"})
    with pytest.raises(ConfigurationError, match=r"write\.avro\.compression-codec='lzma'"):
        rewrite_all_manifests(table)


def test_manifests_that_storage_changed_are_not_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = small_files(lake(tmp_path), 3)
    before = everything(table)
    real = module.read_ahead

    def changed(io: Any, manifests: Any) -> Any:
        for manifest, data in real(io, manifests):
            own = "/floe-" in manifest.manifest_path
            yield manifest, (data[: len(data) - 40] + b"?" + data[len(data) - 39 :] if own else data)

    with table.transaction() as transaction:
        transaction.set_properties({"write.avro.compression-codec": "null"})
    monkeypatch.setattr(module, "read_ahead", changed)
    with pytest.raises(VerificationFailed, match="or changed: nothing was committed"):
        rewrite_all_manifests(table)
    assert everything(table) == before


def test_files_of_partition_nan_come_together_behind_null() -> None:
    values = [1.5, float("nan"), None, -2.0, float("nan"), 1.5]
    ordered = clustered([[((value,), str(number).encode(), 1, 1)] for number, value in enumerate(values)], [0])
    assert [one[1] for one in ordered] == [b"2", b"1", b"4", b"3", b"0", b"5"]


@given(
    st.lists(
        st.tuples(st.tuples(st.none() | st.integers(0, 3), st.none() | st.sampled_from("ab")), st.binary(max_size=3))
    )
)
def test_any_entries_are_all_there_and_in_the_order_of_partitions(found: list[tuple[tuple[Any, ...], bytes]]) -> None:
    raw = [(partition, encoded, 1, 1) for partition, encoded in found]
    ordered = clustered([raw[:3], raw[3:]], [1, 0])
    assert sorted(ordered, key=repr) == sorted(raw, key=repr)
    keys = [(one[0][1] or "", -1 if one[0][0] is None else one[0][0]) for one in ordered]
    assert keys == sorted(keys)


PARTITION = {"type": "record", "name": "r102", "fields": []}
PATH = {"name": "file_path", "type": "string", "field-id": 100}
RECORDS = {"name": "record_count", "type": "long", "field-id": 103}
EXTRA = {"name": "sort_order_id", "type": ["null", "int"], "field-id": 140}
HEAD = (
    {"name": "status", "type": "int", "field-id": 0},
    {"name": "snapshot_id", "type": ["null", "long"], "field-id": 1},
    {"name": "sequence_number", "type": ["null", "long"], "field-id": 3},
)


def described(*file: Any, head: Any = HEAD) -> dict[str, Any]:
    files = {"type": "record", "name": "r2", "fields": list(file)}
    return record(*head, {"name": "data_file", "type": files, "field-id": 2})  # type: ignore[no-any-return]


def of(*file: Any) -> Layout:
    return layout(container(described(*file)), "m")


PART = {"name": "partition", "type": PARTITION, "field-id": 102}
TARGET = of(PATH, PART, RECORDS, EXTRA)


def test_fields_in_another_order_are_put_in_order_and_absent_ones_left_out() -> None:
    source = described(RECORDS, PATH, PART)
    how = conversion(layout(container(source), "m"), TARGET, False)
    assert how is not None
    assert not how.verbatim
    body = number(1) + number(0) + number(0) + number(7) + text("one") + number(1) + number(0) + number(0)
    body += number(8) + text("two")
    manifest = ManifestFile.from_args(
        manifest_path="m", partition_spec_id=0, content=ManifestContent.DATA, sequence_number=5, added_snapshot_id=9
    )
    (found,) = raw_entries(manifest, container(source, (2, body)), how)
    start = number(0) + number(1) + number(9) + number(1) + number(5)
    assert found == [
        ((), start + text("one") + number(7) + number(0), 7, 5),
        ((), start + text("two") + number(8) + number(0), 8, 5),
    ]


@pytest.mark.parametrize(
    "source",
    [
        of(PATH, PART, RECORDS, {"name": "new", "type": ["null", "int"], "field-id": 999}),
        of(PATH, PART, {**RECORDS, "type": "double"}),
        of(PATH, PART, RECORDS, {**EXTRA, "type": ["int", "null"]}),
        of(PATH, PART),
        layout(container(described(PATH, PART, RECORDS, head=({**HEAD[0], "field-id": 77}, *HEAD[1:]))), "m"),
    ],
    ids=[
        "unknown field",
        "other type",
        "other order of a union",
        "nothing for a required field",
        "unknown entry field",
    ],
)
def test_what_would_lose_something_is_not_copied(source: Layout) -> None:
    assert conversion(source, TARGET, False) is None


def test_an_entry_must_end_with_its_file() -> None:
    with pytest.raises(TableUnreadable, match="end with its file"):
        layout_of(container(record(*HEAD)).split(b"avro.schema")[1][2:].split(b"\x14avro.codec")[0])


def test_an_existing_file_without_sequence_number_is_refused(tmp_path: Path) -> None:
    how = conversion(of(PATH, PART, RECORDS), TARGET, False)
    assert how is not None
    body = number(0) + number(0) + number(0) + text("one") + number(7)
    manifest = ManifestFile.from_args(
        manifest_path="s3://b/m",
        partition_spec_id=0,
        content=ManifestContent.DATA,
        sequence_number=5,
        added_snapshot_id=9,
    )
    with pytest.raises(TableUnreadable, match="s3://b/m: an existing file has no sequence number"):
        list(raw_entries(manifest, container(described(PATH, PART, RECORDS), (1, body)), how))


def test_nothing_is_lost_of_an_empty_table(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path))
    assert not rewrite_all_manifests(table).changed
