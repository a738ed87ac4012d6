"""One pass over manifests chooses what is chosen among files in memory; groups are opened a few at a time."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from harness import version_3
from harness.merge_on_read import position_delete
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
)
from pyiceberg.manifest import ManifestEntryStatus
from pyiceberg.table import Table
from rewriting import ids, rewrite, rewrite_all_manifests

from airflow_provider_floe.iceberg import file_groups
from airflow_provider_floe.iceberg.files import FileContent
from airflow_provider_floe.iceberg.filters import MatchingFiles, matching_paths
from airflow_provider_floe.iceberg.manifests import live_files, snapshot_manifests
from airflow_provider_floe.iceberg.selection import select_rewrite, survey_table
from airflow_provider_floe.policies.model import RewriteDataFiles


@pytest.fixture
def few_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files are too many to keep, and to open together."""
    monkeypatch.setattr(file_groups, "MOST_OPEN_FILES", 2)


@pytest.fixture(params=[2, 3])
def table(tmp_path: Path, request: pytest.FixtureRequest) -> Table:
    """Files of three partitions and some deletes, of format version 2 or 3."""
    table = create_table(lake(tmp_path), partitioned=True)
    if request.param == 2:
        append_files(table, 3, parts=("a", "b"))
        append_files(table, 2, parts=("c",), start=1000)
        position_delete(table, {data_files(table)[0].file_path: [0, 1]})
    else:
        table = version_3.upgrade(table)
        for number, parts in enumerate(("ab", "ab", "ab", "c", "c")):
            found = [rows(100 * number + 10 * place, 10, part) for place, part in enumerate(parts)]
            version_3.append(table, pa.concat_tables(found))
        version_3.add_vectors(table, {version_3.live(table)[0].path: {0, 1}})
    return table


def live_ids(table: Table) -> list[version_3.Row] | list[int]:
    """What tells the rows of either format version apart."""
    return version_3.rows(table) if table.metadata.format_version == 3 else ids(table)


@pytest.mark.usefixtures("few_open")
@pytest.mark.parametrize("text", [None, "part in ('a', 'c')"])
def test_a_survey_chooses_what_is_chosen_among_files_in_memory(table: Table, text: str | None) -> None:
    wanted = RewriteDataFiles(filter=text, remove_dangling_deletes=True)
    manifests = snapshot_manifests(table)
    files = list(live_files(table.io, manifests))
    plain = select_rewrite(table.metadata, files, wanted, matching_paths(table, text) if text else None)
    matching = MatchingFiles(table, text).paths if text else None
    survey = survey_table(table.io, table.metadata, manifests, wanted, matching)
    found = list(survey.groups)
    assert len(found) == (2 if text else 3)
    for one, other in zip(found, plain.groups, strict=True):
        assert (one.files, one.size_bytes, one.files_out) == (other.files, other.size_bytes, other.files_out)
        assert {delete.key for delete in one.deletes} == {delete.key for delete in other.deletes}
        closed = survey.groups.closed(one)
        assert (tuple(closed.files), len(closed.files), closed.size_bytes) == (
            one.files,
            len(one.files),
            one.size_bytes,
        )
        assert survey.groups[one.number].files == one.files
    assert survey.selection.dangling == plain.dangling
    assert survey.data_files == sum(file.content is FileContent.DATA for file in files)
    assert survey.deletes == tuple(file for file in files if file.content is not FileContent.DATA)


@pytest.mark.usefixtures("few_open")
def test_groups_are_opened_a_few_at_a_time(table: Table) -> None:
    survey = survey_table(table.io, table.metadata, snapshot_manifests(table), RewriteDataFiles())
    assert [len(window) for window in survey.groups.windows()] == [1] * len(survey.groups)


@pytest.mark.usefixtures("few_open")
def test_a_rewrite_that_opens_few_files_at_a_time_is_whole(table: Table) -> None:
    before, files = live_ids(table), len(data_files(table))
    result = rewrite(table)
    assert (result.files_rewritten, len(data_files(table)), delete_files(table)) == (files, 3, [])
    assert live_ids(table) == before
    assert missing_files(table) == []
    assert not rewrite(table).changed


@pytest.mark.usefixtures("few_open")
def test_files_whose_manifests_were_written_anew_meanwhile_are_found_again(table: Table) -> None:
    before = live_ids(table)
    context = context_for(
        table,
        on_committing=lambda attempt: (
            rewrite_all_manifests(table.catalog.load_table(table.name())) if attempt == 1 else 0
        ),
    )
    assert rewrite(table, context).changed
    assert len(context.commits_begun) == 2
    assert live_ids(table) == before
    assert len(data_files(table)) == 3
    assert missing_files(table) == []


def test_what_a_manifest_says_of_files_that_stay_is_not_changed(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path), partitioned=True)
    append_files(table, 3, parts=("a", "b"))
    rewrite_all_manifests(table)
    kept = {one.data_file.file_path: one for one in entries(table) if one.data_file.partition[0] == "b"}
    result = rewrite(table, filter="part = 'a'")
    assert result.files_rewritten == 3
    after = {one.data_file.file_path: one for one in entries(table)}
    for path, entry in kept.items():
        assert after[path].data_file._data == entry.data_file._data
        assert (after[path].sequence_number, after[path].snapshot_id) == (entry.sequence_number, entry.snapshot_id)
    snapshot = table.metadata.current_snapshot_id
    deleted = [
        entry
        for manifest in snapshot_manifests(table)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False)
        if entry.status == ManifestEntryStatus.DELETED
    ]
    assert len(deleted) == 3
    assert {(entry.snapshot_id, entry.data_file.partition[0]) for entry in deleted} == {(snapshot, "a")}
    told = [one for one in snapshot_manifests(table) if one.deleted_files_count]
    assert [(one.existing_files_count, one.deleted_files_count) for one in told] == [(3, 3)]
    assert [(one.existing_rows_count, one.deleted_rows_count) for one in told] == [(30, 30)]
    assert told[0].min_sequence_number == min(entry.sequence_number or 0 for entry in kept.values())
