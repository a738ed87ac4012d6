"""Manifests written anew: the same entries, fewer files, clustered by partition."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
from harness.merge_on_read import equality_delete, position_delete
from harness.tables import (
    append_files,
    context_for,
    create_table,
    data_files,
    delete_files,
    entries,
    lake,
    missing_files,
    rows,
    rows_digest,
    small_files,
    stored_files,
    table_ref,
)
from pyiceberg.manifest import ManifestContent
from pyiceberg.table import Table
from rewriting import ids, rewrite, rewrite_all_manifests, work_on_manifests

from airflow_provider_floe.engines.base import TableLocation
from airflow_provider_floe.engines.local import manifest_splice
from airflow_provider_floe.engines.local import rewrite_manifests as module
from airflow_provider_floe.errors import CommitConflict, ConfigurationError, UnsafeLocation, VerificationFailed
from airflow_provider_floe.iceberg.manifests import snapshot_manifests


def said(table: Table) -> list[tuple[Any, ...]]:
    """What the live entries say, their status left out."""
    return sorted(
        (
            entry.data_file.file_path,
            entry.snapshot_id,
            entry.sequence_number,
            entry.file_sequence_number,
            tuple(entry.data_file.partition),
            entry.data_file.record_count,
            sorted(dict(entry.data_file.lower_bounds or {}).items()),
            sorted(dict(entry.data_file.null_value_counts or {}).items()),
            entry.data_file.equality_ids,
        )
        for entry in entries(table)
    )


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("parts", [(), ("a", "b")], ids=["unpartitioned", "partitioned"])
def test_entries_are_the_same_in_fewer_manifests(tmp_path: Path, version: str, parts: tuple[str, ...]) -> None:
    table = small_files(lake(tmp_path), 5, parts=parts, properties={"format-version": version})
    before, digest = said(table), rows_digest(table)
    planned = work_on_manifests(table)
    result = rewrite_all_manifests(table)
    assert said(table) == before
    assert rows_digest(table) == digest
    assert (planned.manifests_in, planned.manifests_out) == (result.manifests_rewritten, result.manifests_added)
    assert result.manifests_added == len(snapshot_manifests(table)) == 1
    assert missing_files(table) == []
    assert not work_on_manifests(table).found
    assert not rewrite_all_manifests(table).changed


def test_delete_manifests_are_merged_too_and_apart(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3)
    for number in range(3):
        position_delete(table, {data_files(table)[number].file_path: [0]})
    equality_delete(table, rows(0, 1), ["id"])
    before = said(table)
    rewrite_all_manifests(table)
    assert said(table) == before
    assert sorted(one.content for one in snapshot_manifests(table)) == [ManifestContent.DATA, ManifestContent.DELETES]
    assert len(delete_files(table)) == 4
    rewrite(table)
    assert len(ids(table)) == len({*ids(table)} - {0}) <= 27


def test_a_small_target_gives_manifests_that_each_hold_few_partitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = tuple("abcdefgh")
    table = small_files(lake(tmp_path), 6, parts=parts)
    rewrite_all_manifests(table)
    one = snapshot_manifests(table)[0].manifest_length
    with table.transaction() as transaction:
        transaction.set_properties({"commit.manifest.target-size-bytes": str(one // 4)})
    monkeypatch.setattr(manifest_splice, "ENTRIES_PER_BLOCK", 4)
    rewrite_all_manifests(table)
    manifests = snapshot_manifests(table)
    assert len(manifests) > 1
    for manifest in manifests:
        held = {entry.data_file.partition[0] for entry in manifest.fetch_manifest_entry(table.io)}
        assert len(held) < len(parts)
    assert len(rows_digest(table)) == 6 * 8 * 10


def test_each_spec_keeps_its_manifests_and_one_can_be_chosen(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path))
    append_files(table, 3)
    with table.update_spec() as update:
        update.add_identity("part")
    append_files(table, 3, start=100, parts=("a", "b"))
    before = said(table)
    assert rewrite_all_manifests(table, spec_id=1).manifests_rewritten == 6
    assert sorted(one.partition_spec_id for one in snapshot_manifests(table)) == [0, 0, 0, 1]
    assert rewrite_all_manifests(table).manifests_rewritten == 3
    assert said(table) == before


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"content": "DATA"}, 4),
        ({"content": "DELETES"}, 0),
        ({"addedRowsCount": 7}, 2),
        ({"addedFilesCount": 1, "deletedFilesCount": 0, "existingFilesCount": 0, "specId": 0}, 4),
        ({"partitionSummaries": [{"containsNull": False, "lowerBound": "b", "upperBound": "b"}]}, 2),
        ({"sequenceNumber": 1}, 0),
        ({"path": "nowhere"}, 0),
    ],
)
def test_rewrite_if_chooses_by_the_manifest_lists_values(
    tmp_path: Path, condition: dict[str, Any], expected: int
) -> None:
    table = create_table(lake(tmp_path), partitioned=True)
    append_files(table, 2, 10, parts=("a",))
    append_files(table, 2, 7, start=100, parts=("b",))
    assert work_on_manifests(table, rewrite_if=condition).manifests_in == expected
    assert rewrite_all_manifests(table, rewrite_if=condition).manifests_rewritten == expected


def test_an_append_meanwhile_is_kept(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3)

    def act(attempt: int) -> None:
        if attempt == 1:
            append_files(table.catalog.load_table(table.name()), 1, start=100)

    assert rewrite_all_manifests(table, context_for(table, on_committing=act)).changed
    assert len(ids(table)) == 40
    assert len(snapshot_manifests(table)) == 2


def test_manifests_replaced_meanwhile_are_a_conflict_that_leaves_nothing(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3)

    def act(attempt: int) -> None:
        if attempt == 1:
            rewrite_all_manifests(table.catalog.load_table(table.name()))

    context = context_for(table, on_committing=act)
    with pytest.raises(CommitConflict, match="replaced meanwhile"):
        rewrite_all_manifests(table, context)
    left = {path.name for path in stored_files(table)}
    assert not [path for path in context.journal.outputs if path.rpartition("/")[2] in left]
    assert len(ids(table)) == 30


def test_an_entry_that_is_lost_is_caught_before_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = small_files(lake(tmp_path), 3)
    real = module.clustered
    monkeypatch.setattr(module, "clustered", lambda entries, positions: real(entries, positions)[1:])
    with pytest.raises(VerificationFailed, match="3 entries of 3 manifests came back as 2"):
        rewrite_all_manifests(table)
    assert len(snapshot_manifests(table)) == 3
    assert gc.isenabled()  # it was not while entries were held


def test_manifests_of_dead_entries_go(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 4)
    rewrite(table)
    rewrite_all_manifests(table)
    assert len(snapshot_manifests(table)) == 1
    assert ids(table) == [*range(40)]


def test_settings_that_cannot_be_met_are_named(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3, parts=("a", "b"))
    with pytest.raises(ConfigurationError, match=r"sortBy 'id'.*part"):
        rewrite_all_manifests(table, sort_by=["id"])
    assert rewrite_all_manifests(table, sort_by=["part"]).changed


def test_manifests_from_before_an_upgrade_to_version_2_are_rewritten(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3, properties={"format-version": "1"})
    with table.transaction() as transaction:
        transaction.upgrade_table_version(2)
    append_files(table, 2, start=100)
    before = rows_digest(table)
    assert rewrite_all_manifests(table).changed
    assert rows_digest(table) == before
    assert not work_on_manifests(table).found


def test_new_manifests_stand_in_the_staging_location(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3)
    staging = f"file://{tmp_path}/staged"
    rewrite_all_manifests(table, staging_location=f"{staging}/")
    (manifest,) = snapshot_manifests(table)
    assert manifest.manifest_path.startswith(f"{staging}/floe-")
    assert ids(table) == [*range(30)]


def test_a_staging_location_of_another_table_is_refused(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3)
    other = TableLocation(table_ref(table), None, (f"file://{tmp_path}/other",))
    with pytest.raises(UnsafeLocation, match="other"):
        rewrite_all_manifests(table, context_for(table, others=[other]), staging_location=f"{tmp_path}/other/metadata")
    assert len(snapshot_manifests(table)) == 3
