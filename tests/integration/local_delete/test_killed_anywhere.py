"""Promises 1, 11 and 19 over random histories: killed at any point, run again, nothing that is referenced is lost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.tables import (
    context_for,
    create_table,
    lake,
    local_path,
    missing_files,
    request_for,
    rows,
    rows_digest,
    stored_files,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.table import Table

from airflow_provider_floe.engines.local import expire, orphans
from airflow_provider_floe.policies.model import ExpireSnapshots, OrphanCleanup
from airflow_provider_floe.tables import Operation


class Killed(BaseException):
    """The process is gone."""


def history(table: Table, steps: list[tuple[str, int]]) -> None:
    for number, (step, pick) in enumerate(steps):
        snapshots = table.metadata.snapshots
        chosen = snapshots[pick % len(snapshots)].snapshot_id if snapshots else None
        start = 100 * number
        if step == "append":
            table.append(rows(start, 5))
        elif step == "overwrite":
            table.overwrite(rows(start, 5))
        elif step == "delete":
            table.delete(f"id < {100 * (pick % (number + 1)) + 3}")
        elif chosen is None:
            continue
        elif step == "tag":
            table.manage_snapshots().create_tag(chosen, f"tag-{number}").commit()
        elif step == "branch":
            table.manage_snapshots().create_branch(chosen, f"branch-{number}").commit()
            table.append(rows(start, 5), branch=f"branch-{number}")
        elif step == "roll back":
            table.manage_snapshots().set_current_snapshot(snapshot_id=chosen).commit()
        table.refresh()


def content(table: Table) -> dict[str, Any]:
    """The ids that each branch and tag reads."""
    table.refresh()
    return {
        name: sorted(table.scan(snapshot_id=ref.snapshot_id).to_arrow()["id"].to_pylist())
        for name, ref in table.refs().items()
    }


def killed_at(calls: int) -> Callable[[], None]:
    left = [calls]

    def checkpoint() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    return checkpoint


STEPS = st.tuples(
    st.sampled_from(["append", "append", "overwrite", "delete", "tag", "branch", "roll back"]), st.integers(0, 9)
)


@settings(max_examples=12, deadline=None)
@given(st.lists(STEPS, min_size=2, max_size=7), st.integers(1, 3), st.integers(0, 5), st.booleans())
def test_rows_of_every_branch_and_tag_survive(
    steps: list[tuple[str, int]], retain_last: int, calls: int, quarantine: bool
) -> None:
    with TemporaryDirectory() as folder:
        table = create_table(lake(Path(folder)))
        history(table, steps)
        before, digest = content(table), rows_digest(table)
        stray = local_path(table.location()) / "data" / "stray.parquet"
        stray.parent.mkdir(exist_ok=True)
        stray.write_bytes(b"stray")
        aside = timedelta(days=1) if quarantine else None
        expiry = request_for(
            table,
            Operation.EXPIRE_SNAPSHOTS,
            ExpireSnapshots(retain_last=retain_last, max_snapshot_age=timedelta(hours=1), quarantine=aside),
        )
        removal = request_for(
            table, Operation.REMOVE_ORPHAN_FILES, OrphanCleanup(quarantine=aside), operation_id="op-2"
        )
        for run, request in ((expire.run, expiry), (orphans.run, removal)):
            for path in stored_files(table):
                os.utime(path, (time.time(), time.time() - 9 * 86_400))
            context = context_for(table, time=datetime.now(UTC) + timedelta(hours=2), on_checkpoint=killed_at(calls))
            try:
                run(request, context, 0)
            except Killed:
                assert content(table) == before
            context.on_checkpoint = lambda: None
            run(request, context, 0)
            assert content(table) == before
            assert missing_files(table) == []
            recorded = {deletion.path for deletion in context.journal.deletions}
            assert set(context.journal.deleted) <= recorded
        assert not stray.exists()
        assert rows_digest(table) == digest
