"""Trap T7: catalogs drop a branch or tag that was created on a snapshot while that snapshot expired."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from harness.rest_server import rest_server
from harness.tables import (
    FAST_RETRIES,
    SCHEMA,
    append_files,
    context_for,
    lake,
    missing_files,
    request_for,
    rows,
    rows_digest,
    small_files,
    stored_files,
)
from pyiceberg.catalog import load_catalog
from pyiceberg.table import Table

from airflow_provider_floe.engines.local import expire
from airflow_provider_floe.errors import UnsafeOperation
from airflow_provider_floe.policies.model import ExpireSnapshots
from airflow_provider_floe.tables import Operation

SETTINGS = ExpireSnapshots(retain_last=1, max_snapshot_age=timedelta(hours=1))


def concurrently(table: Table) -> Table:
    """The table as another client sees it."""
    return table.catalog.load_table(table.name())


def overwritten(tmp_path: Path) -> Table:
    table = small_files(lake(tmp_path), 4)
    table.overwrite(rows(100, 10))
    return table


def test_promise_9_a_tag_created_while_its_snapshot_expires_keeps_it(tmp_path: Path) -> None:
    table = overwritten(tmp_path)
    pinned = table.metadata.snapshots[2].snapshot_id
    scan = sorted(table.scan(snapshot_id=pinned).to_arrow()["id"].to_pylist())
    sequence = table.metadata.last_sequence_number

    def tag(attempt: int) -> None:
        if attempt == 1:
            concurrently(table).manage_snapshots().create_tag(pinned, "audit", max_ref_age_ms=10**12).commit()

    context = context_for(table, on_committing=tag)
    result = expire.run(request_for(table, Operation.EXPIRE_SNAPSHOTS, SETTINGS), context, 0)
    table.refresh()
    assert result.files_deleted > 0
    assert table.refs()["audit"].snapshot_id == pinned
    assert table.refs()["audit"].max_ref_age_ms == 10**12
    assert sorted(table.scan(snapshot_id=pinned).to_arrow()["id"].to_pylist()) == scan
    assert missing_files(table) == []
    # what is committed next must not reuse a sequence number
    assert table.metadata.last_sequence_number > sequence
    digest = rows_digest(table)
    append_files(table, 1, start=500)
    assert table.metadata.last_sequence_number > sequence + 1
    assert len(rows_digest(table)) == len(digest) + 10


def test_a_branch_created_while_its_head_expires_keeps_it(tmp_path: Path) -> None:
    table = overwritten(tmp_path)
    first, second = (snapshot.snapshot_id for snapshot in table.metadata.snapshots[:2])

    def fork(attempt: int) -> None:
        if attempt == 1:
            other = concurrently(table)
            other.manage_snapshots().create_branch(first, "dev").create_tag(second, "v1").create_tag(
                second, "v2"
            ).commit()

    context = context_for(table, on_committing=fork)
    expire.run(request_for(table, Operation.EXPIRE_SNAPSHOTS, SETTINGS), context, 0)
    table.refresh()
    assert {name: ref.snapshot_id for name, ref in table.refs().items() if name != "main"} == {
        "dev": first,
        "v1": second,
        "v2": second,
    }
    assert missing_files(table) == []


def test_a_tag_that_its_owner_removed_again_stays_removed(tmp_path: Path) -> None:
    table = overwritten(tmp_path)
    pinned = table.metadata.snapshots[2].snapshot_id

    def tag(attempt: int) -> None:
        if attempt == 1:
            concurrently(table).manage_snapshots().create_tag(pinned, "audit").commit()
            concurrently(table).manage_snapshots().remove_tag("audit").commit()

    context = context_for(table, on_committing=tag)
    expire.run(request_for(table, Operation.EXPIRE_SNAPSHOTS, SETTINGS), context, 0)
    table.refresh()
    assert "audit" not in table.refs()
    assert len(table.metadata.snapshots) == 1


def test_a_rollback_to_an_expiring_snapshot_wins(tmp_path: Path) -> None:
    table = overwritten(tmp_path)
    target = table.metadata.snapshots[2].snapshot_id

    def roll_back(attempt: int) -> None:
        if attempt == 1:
            concurrently(table).manage_snapshots().rollback_to_snapshot(target).commit()

    context = context_for(table, on_committing=roll_back)
    expire.run(request_for(table, Operation.EXPIRE_SNAPSHOTS, SETTINGS), context, 0)
    table.refresh()
    assert table.metadata.current_snapshot_id == target
    assert len(context.commits_begun) == 2
    assert len(rows_digest(table)) == 30
    assert missing_files(table) == []


def test_an_append_meanwhile_is_kept(tmp_path: Path) -> None:
    table = overwritten(tmp_path)
    context = context_for(
        table,
        on_committing=lambda attempt: (
            append_files(concurrently(table), 1, start=700) and None if attempt == 1 else None
        ),
    )
    expire.run(request_for(table, Operation.EXPIRE_SNAPSHOTS, SETTINGS), context, 0)
    table.refresh()
    assert len(rows_digest(table)) == 20
    assert missing_files(table) == []


def test_over_rest_a_lost_tag_comes_back_too(tmp_path: Path) -> None:
    with rest_server(tmp_path) as server:
        catalog = load_catalog("lake", type="rest", uri=server.uri)
        catalog.create_namespace_if_not_exists("db")
        table = catalog.create_table("db.events", schema=SCHEMA, properties=FAST_RETRIES)
        append_files(table, 3)
        table.overwrite(rows(100, 10))
        pinned = table.metadata.snapshots[1].snapshot_id

        def tag(attempt: int) -> None:
            if attempt == 1:
                concurrently(table).manage_snapshots().create_tag(pinned, "audit").commit()

        context = context_for(table, on_committing=tag)
        settings = SETTINGS.model_copy(update={"clean_expired_metadata": True})
        result = expire.run(request_for(table, Operation.EXPIRE_SNAPSHOTS, settings), context, 0)
        table.refresh()
        assert result.snapshots_expired == 3
        assert "gave 1 snapshots back" in result.message
        assert table.refs()["audit"].snapshot_id == pinned
        assert table.scan(snapshot_id=pinned).to_arrow().num_rows == 20
        assert len(rows_digest(table)) == 10
        assert missing_files(table) == []


def test_nothing_is_deleted_when_metadata_that_may_have_had_a_tag_is_dropped_already(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 4, properties={"write.metadata.previous-versions-max": "1"})
    table.overwrite(rows(100, 10))
    first = table.metadata.snapshots[0].snapshot_id
    files = stored_files(table)

    def tag(attempt: int) -> None:
        concurrently(table).manage_snapshots().create_tag(first, "audit").commit()

    def load() -> Table:
        if context.commits_begun and len(concurrently(table).metadata.snapshots) == 1:
            append_files(concurrently(table), 2, start=200)
        return concurrently(table)

    context = context_for(table, on_committing=tag)
    context.table_loader = load
    with pytest.raises(UnsafeOperation, match="previous-versions-max"):
        expire.run(request_for(table, Operation.EXPIRE_SNAPSHOTS, SETTINGS), context, 0)
    assert files <= stored_files(table)
