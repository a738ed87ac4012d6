from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from harness.merge_on_read import equality_delete, position_delete
from harness.tables import (
    FakeContext,
    append_files,
    context_for,
    create_table,
    data_files,
    lake,
    local_path,
    missing_files,
    request_for,
    rows,
    rows_digest,
    small_files,
    stored_files,
)
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.statistics import BlobMetadata, StatisticsFile
from pyiceberg.types import LongType, StringType

from airflow_provider_floe.engines.base import OperationResult
from airflow_provider_floe.engines.local import deletion, expire, rewrite_data
from airflow_provider_floe.errors import (
    CommitConflict,
    CommitOutcomeUnknown,
    OperationCancelled,
    RetentionRefused,
    TableUnreadable,
    UnsafeOperation,
)
from airflow_provider_floe.iceberg.retention import expire_work
from airflow_provider_floe.policies.model import ExpireSnapshots, RewriteDataFiles
from airflow_provider_floe.tables import Operation


def policy(retain_last: int = 1, **settings: Any) -> ExpireSnapshots:
    return ExpireSnapshots(retain_last=retain_last, max_snapshot_age=timedelta(hours=1), **settings)


def run(table: Table, settings: ExpireSnapshots, context: FakeContext | None = None) -> OperationResult:
    request = request_for(table, Operation.EXPIRE_SNAPSHOTS, settings)
    return expire.run(request, context or context_for(table), 256 * 1024**2)


def referenced(table: Table) -> set[Path]:
    """Data, delete, manifest and manifest list files of all snapshots, as pyiceberg's inspection tables see them."""
    found = set(table.inspect.all_files()["file_path"].to_pylist()) if table.metadata.snapshots else set()
    found |= set(table.inspect.all_manifests()["path"].to_pylist()) if table.metadata.snapshots else set()
    found |= {snapshot.manifest_list for snapshot in table.metadata.snapshots}
    return {local_path(path) for path in found}


def without_metadata(files: set[Path]) -> set[Path]:
    return {path for path in files if not path.name.endswith(".metadata.json")}


def overwritten(tmp_path: Path, **settings: Any) -> Table:
    """A table most of whose files only old snapshots use."""
    table = small_files(lake(tmp_path), 4, **settings)
    table.overwrite(rows(100, 10))
    return append_files(table, 1, start=200)


def test_promise_11_deletes_exactly_what_became_unreachable(tmp_path: Path) -> None:
    table = overwritten(tmp_path)
    digest, before, stored = rows_digest(table), referenced(table), stored_files(table)
    context = context_for(table)
    result = run(table, policy(), context)
    table.refresh()
    after = referenced(table)
    assert result.snapshots_expired == 6
    assert len(table.metadata.snapshots) == 1
    assert stored - stored_files(table) == before - after
    assert result.files_deleted == len(before - after) > 8
    assert result.bytes_deleted == sum(d.size_bytes for d in context.journal.deletions) > 0
    assert rows_digest(table) == digest
    assert missing_files(table) == []


def test_promise_11_with_branches_tags_and_delete_files(tmp_path: Path) -> None:
    table = overwritten(tmp_path, parts=("a", "b"))
    old = table.metadata.snapshots[1].snapshot_id
    table.manage_snapshots().create_tag(old, "audit").create_branch(
        table.metadata.snapshots[3].snapshot_id, "dev"
    ).commit()
    table.append(rows(900, 10), branch="dev")
    position_delete(table, {data_files(table)[0].file_path: [0, 3]})
    table.delete("id >= 200")
    before, stored, digest = referenced(table), stored_files(table), rows_digest(table)
    tagged = table.scan(snapshot_id=old).to_arrow().num_rows
    result = run(table, policy())
    table.refresh()
    after = referenced(table)
    assert stored - stored_files(table) == before - after
    assert result.files_deleted == len(before - after) > 0
    assert {"main", "audit", "dev"} <= set(table.refs())
    assert table.scan(snapshot_id=old).to_arrow().num_rows == tagged
    assert rows_digest(table) == digest
    assert missing_files(table) == []


def test_promise_9_floors_of_the_table_hold(tmp_path: Path) -> None:
    table = overwritten(tmp_path, properties={"history.expire.min-snapshots-to-keep": "3"})
    run(table, policy())
    table.refresh()
    assert len(table.metadata.snapshots) == 3
    run(table, policy(allow_below_table_retention=True))
    table.refresh()
    assert len(table.metadata.snapshots) == 1


def test_promise_9_staged_snapshots_keep_their_files(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3)
    table.append(rows(500, 10), snapshot_properties={"wap.id": "w1"})
    staged = table.metadata.current_snapshot_id
    assert staged is not None
    table.manage_snapshots().rollback_to_snapshot(table.metadata.snapshots[2].snapshot_id).commit()
    result = run(table, policy())
    table.refresh()
    assert result.snapshots_expired == 2
    assert table.scan(snapshot_id=staged).to_arrow().num_rows == 40


@pytest.mark.parametrize("properties", [{"gc.enabled": "false"}, {"encryption.key-id": "k1"}])
def test_promise_8_refuses_and_says_why(tmp_path: Path, properties: dict[str, str]) -> None:
    table = overwritten(tmp_path, properties=properties)
    stored = stored_files(table)
    with pytest.raises(RetentionRefused, match=next(iter(properties))):
        run(table, policy())
    assert stored_files(table) == stored
    work = expire_work(table, policy(), datetime.now().astimezone())
    assert work.refusal
    assert not work.found


def test_expiring_again_changes_nothing(tmp_path: Path) -> None:
    table = overwritten(tmp_path)
    context = context_for(table)
    assert expire_work(table, policy(), context.now()).snapshots == 6
    assert run(table, policy(), context).changed
    table.refresh()
    assert expire_work(table, policy(), context.now()).found is False
    location = table.metadata_location
    assert not run(table, policy(), context).changed
    table.refresh()
    assert table.metadata_location == location


def test_one_snapshot_alone(tmp_path: Path) -> None:
    table = overwritten(tmp_path)
    only = table.metadata.snapshots[2].snapshot_id
    result = run(table, policy(expire_snapshot_id=only))
    table.refresh()
    assert result.snapshots_expired == 1
    assert table.metadata.snapshot_by_id(only) is None
    assert missing_files(table) == []
    with pytest.raises(RetentionRefused, match="head of branch main"):
        run(table, policy(expire_snapshot_id=table.metadata.current_snapshot_id))


def test_refs_past_their_age_go_with_their_snapshots(tmp_path: Path) -> None:
    table = overwritten(tmp_path)
    first, second = (snapshot.snapshot_id for snapshot in table.metadata.snapshots[:2])
    table.manage_snapshots().create_tag(first, "old", max_ref_age_ms=1000).create_tag(second, "kept").commit()
    result = run(table, policy())
    table.refresh()
    assert set(table.refs()) == {"main", "kept"}
    assert "dropped old" in result.message
    assert table.metadata.snapshot_by_id(first) is None
    assert missing_files(table) == []


def test_format_version_1(tmp_path: Path) -> None:
    table = overwritten(tmp_path, properties={"format-version": "1"})
    digest = rows_digest(table)
    assert table.metadata.format_version == 1
    assert run(table, policy()).snapshots_expired == 6
    table.refresh()
    assert rows_digest(table) == digest
    assert missing_files(table) == []


def test_a_table_dropped_and_created_again_meanwhile_is_not_touched(tmp_path: Path) -> None:
    table = overwritten(tmp_path)
    catalog = table.catalog
    context = context_for(table)

    def replace(real: Callable[..., Any], *args: Any) -> None:
        real(*args)
        catalog.commit_table = real
        catalog.drop_table(table.name())
        small_files(catalog, 1)

    stored = stored_files(table)
    _failing(catalog, replace)
    with pytest.raises(UnsafeOperation, match="another table"):
        run(table, policy(), context)
    assert stored <= stored_files(table)


def test_an_empty_table_has_nothing_to_expire(tmp_path: Path) -> None:
    assert not run(create_table(lake(tmp_path)), policy()).changed


@pytest.mark.parametrize(
    ("caps", "named"),
    [
        ({"max_delete_files": 2}, "maxDeleteFiles=2"),
        ({"max_delete_bytes": 10}, "maxDeleteBytes=10"),
        ({"max_delete_share": 0.1}, "maxDeleteShare=0.1"),
    ],
)
def test_promise_18_caps_halt_before_the_commit(tmp_path: Path, caps: dict[str, Any], named: str) -> None:
    table = overwritten(tmp_path)
    stored, location = stored_files(table), table.metadata_location
    with pytest.raises(UnsafeOperation, match=named):
        run(table, policy(**caps))
    table.refresh()
    assert stored_files(table) == stored
    assert table.metadata_location == location


def test_promise_18_deletions_are_journaled_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = overwritten(tmp_path)
    context = context_for(table)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(deletion, "delete_files", killed)
    digest = rows_digest(table)
    with pytest.raises(KeyboardInterrupt):
        run(table, policy(), context)
    assert context.journal.deletions
    assert context.journal.deleted == []
    assert all(local_path(d.path).exists() for d in context.journal.deletions)
    table.refresh()
    assert rows_digest(table) == digest
    assert not run(table, policy()).changed


def test_promise_18_quarantine_and_restore(tmp_path: Path) -> None:
    table = overwritten(tmp_path)
    stored, old_metadata = stored_files(table), table.metadata_location
    context = context_for(table)
    result = run(table, policy(quarantine=timedelta(days=7)), context)
    moved = context.journal.deletions
    assert result.files_deleted == 0
    assert result.files_quarantined == len(moved) > 8
    assert all(f"/_floe_quarantine/op-1/{d.path.rsplit('/', 2)[1]}/" in str(d.quarantined_to) for d in moved)
    entries = [(d.path, str(d.quarantined_to)) for d in moved]
    assert deletion.restore(table.io, entries) == len(moved)
    assert stored <= stored_files(table)
    assert deletion.restore(table.io, entries) == 0
    assert local_path(old_metadata).exists()


def test_promise_4_metadata_files_stay(tmp_path: Path) -> None:
    table = create_table(lake(tmp_path), properties={"write.metadata.previous-versions-max": "2"})
    append_files(table, 5)
    before = {path for path in stored_files(table) if path.name.endswith(".metadata.json")}
    run(table, policy())
    assert before <= stored_files(table)


def test_statistics_go_with_their_snapshot(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3)
    paths = {}
    for snapshot in table.metadata.snapshots[1:]:
        path = f"{table.location()}/metadata/stats-{snapshot.snapshot_id}.puffin"
        local_path(path).write_bytes(b"PFA1")
        blob = BlobMetadata(
            type="apache-datasketches-theta-v1", snapshot_id=snapshot.snapshot_id, sequence_number=1, fields=[1]
        )
        file = StatisticsFile(
            snapshot_id=snapshot.snapshot_id,
            statistics_path=path,
            file_size_in_bytes=4,
            file_footer_size_in_bytes=1,
            blob_metadata=[blob],
        )
        table.update_statistics().set_statistics(file).commit()
        paths[snapshot.snapshot_id] = local_path(path)
    gone, kept = table.metadata.snapshots[1].snapshot_id, table.metadata.snapshots[2].snapshot_id
    run(table, policy())
    table.refresh()
    assert [s.snapshot_id for s in table.metadata.statistics] == [kept]
    assert not paths[gone].exists()
    assert paths[kept].exists()


def test_a_schema_stays_for_the_column_that_an_equality_delete_compares(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 2)
    equality_delete(table, rows(5, 1), ["text"])
    with table.update_schema() as update:
        update.delete_column("text")
    with table.update_schema() as update:
        update.add_column("other", StringType())
    table.append(rows(100, 10).drop(["text"]))
    result = run(table, policy(clean_expired_metadata=True))
    table.refresh()
    assert "removed 1 unused schemas" in result.message
    assert [schema.schema_id for schema in table.metadata.schemas] == [0, table.metadata.current_schema_id]
    assert not run(table, policy(clean_expired_metadata=True)).changed
    request = request_for(table, Operation.REWRITE_DATA_FILES, RewriteDataFiles())
    assert rewrite_data.run(request, context_for(table), 256 * 1024**2).changed
    assert table.refresh().scan().to_arrow()["id"].sort().to_pylist() == [*range(5), *range(6, 20), *range(100, 110)]
    assert run(table, policy(clean_expired_metadata=True)).changed
    assert [schema.schema_id for schema in table.refresh().metadata.schemas] == [table.metadata.current_schema_id]


def test_a_schema_stays_for_the_column_that_an_old_spec_partitions_by(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 2, parts=("a", "b"))
    with table.update_spec() as spec:
        spec.remove_field("part")
    with table.update_schema() as update:
        update.delete_column("part")
    table.append(rows(100, 10).drop(["part"]))
    run(table, policy(clean_expired_metadata=True))
    assert [schema.schema_id for schema in table.refresh().metadata.schemas] == [0, 1]
    request = request_for(table, Operation.REWRITE_DATA_FILES, RewriteDataFiles(strategy="SORT", sort_order=["id"]))
    assert rewrite_data.run(request, context_for(table), 256 * 1024**2).changed
    assert sorted(tuple(file.partition) for file in data_files(table.refresh())) == [(), ("a",), ("b",)]
    assert len(rows_digest(table)) == 50


def test_unused_schemas_and_specs_go_when_asked(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 2)
    with table.update_schema() as update:
        update.add_column("more", LongType())
    with table.update_spec() as spec:
        spec.add_identity("part")
    table.overwrite(rows(0, 5).append_column("more", [[1, 2, 3, 4, 5]]))
    kept = run(table, policy(retain_last=2, clean_expired_metadata=True))
    table.refresh()
    assert kept.details["spec_ids"] == []
    run(table, policy(clean_expired_metadata=True))
    table.refresh()
    assert [schema.schema_id for schema in table.metadata.schemas] == [table.metadata.current_schema_id]
    assert [spec.spec_id for spec in table.metadata.partition_specs] == [table.metadata.default_spec_id]
    assert isinstance(table.schema(), Schema)
    assert len(rows_digest(table)) == 5


def test_promise_1_stops_when_a_manifest_cannot_be_read(tmp_path: Path) -> None:
    table = overwritten(tmp_path)
    location = table.metadata_location
    os.unlink(local_path(table.current_snapshot().manifests(table.io)[0].manifest_path))  # type: ignore[union-attr]
    stored = stored_files(table)
    with pytest.raises(TableUnreadable):
        run(table, policy())
    assert stored_files(table) == stored
    table.refresh()
    assert table.metadata_location == location


def test_a_cancelled_run_stops_between_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion, "_BATCH", 3)
    table = overwritten(tmp_path)
    context = context_for(table)

    def cancel() -> None:
        if len(context.journal.deleted) >= 3:
            raise OperationCancelled("cancelled")

    context.on_checkpoint = cancel
    with pytest.raises(OperationCancelled):
        run(table, policy(), context)
    assert len(context.journal.deletions) == len(context.journal.deleted) == 3
    table.refresh()
    assert missing_files(table) == []


def _failing(catalog: Any, commit: Callable[..., Any]) -> Any:
    real = catalog.commit_table
    catalog.commit_table = lambda *args, **kwargs: commit(real, *args, **kwargs)
    return catalog


def test_promise_12_an_unknown_outcome_deletes_nothing(tmp_path: Path) -> None:
    table = overwritten(tmp_path)
    stored = stored_files(table)
    context = context_for(table)

    def lost(*_: object) -> None:
        raise CommitStateUnknownException("gateway timeout")

    _failing(table.catalog, lost)
    with pytest.raises(CommitOutcomeUnknown, match="no file was deleted"):
        run(table, policy(), context)
    assert stored_files(table) == stored
    assert not context.journal.deletions
    table.refresh()
    assert not expire.expiry_happened(table, context.commits_begun[0])


@pytest.mark.parametrize(
    "error", [CommitStateUnknownException("timeout"), CommitFailedException("conflict with itself")]
)
def test_promise_12_a_commit_whose_answer_was_lost_is_found(tmp_path: Path, error: Exception) -> None:
    table = overwritten(tmp_path)
    context = context_for(table)

    def answer_lost(real: Callable[..., Any], *args: Any) -> None:
        real(*args)
        raise error

    _failing(table.catalog, answer_lost)
    result = run(table, policy(), context)
    assert result.snapshots_expired == 6
    assert result.files_deleted > 0
    table.refresh()
    assert expire.expiry_happened(table, context.commits_begun[0])
    assert missing_files(table) == []


def test_promise_13_gives_up_when_others_keep_committing(tmp_path: Path) -> None:
    table = overwritten(tmp_path, properties={"commit.retry.num-retries": "2"})
    stored = stored_files(table)
    context = context_for(table, on_committing=lambda _: table.append(rows(700, 1)) and None)
    with pytest.raises(CommitConflict):
        run(table, policy(), context)
    assert len(context.commits_begun) == 3
    assert stored <= stored_files(table)
