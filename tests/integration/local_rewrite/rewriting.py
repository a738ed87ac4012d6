"""What the tests of this folder share."""

from __future__ import annotations

from typing import Any

from harness.tables import FakeContext, context_for, request_for
from pyiceberg.table import Table

from airflow_provider_floe.engines.base import OperationResult
from airflow_provider_floe.engines.local import rewrite_data, rewrite_manifests
from airflow_provider_floe.engines.local.rewrite_deletes import run as run_rewrite_deletes
from airflow_provider_floe.iceberg.delete_selection import position_delete_work
from airflow_provider_floe.iceberg.manifests import live_files, snapshot_manifests
from airflow_provider_floe.iceberg.selection import manifest_work, rewrite_work
from airflow_provider_floe.iceberg.work import Work
from airflow_provider_floe.policies.model import RewriteDataFiles, RewriteManifests, RewritePositionDeleteFiles
from airflow_provider_floe.tables import Operation

MEMORY = 256 * 1024**2


def rewrite(table: Table, context: FakeContext | None = None, memory: int = MEMORY, **settings: Any) -> OperationResult:
    """Rewrite data files; the table is refreshed.

    :param memory: bytes; each full :data:`MEMORY` of it lets one more file group be rewritten at a time.
    """
    request = request_for(table, Operation.REWRITE_DATA_FILES, RewriteDataFiles(**settings))
    try:
        return rewrite_data.run(request, context or context_for(table), memory)
    finally:
        table.refresh()


def rewrite_all_manifests(table: Table, context: FakeContext | None = None, **settings: Any) -> OperationResult:
    """Rewrite manifests; the table is refreshed."""
    request = request_for(table, Operation.REWRITE_MANIFESTS, RewriteManifests(**settings))
    try:
        return rewrite_manifests.run(request, context or context_for(table), MEMORY)
    finally:
        table.refresh()


def rewrite_deletes(table: Table, context: FakeContext | None = None, **settings: Any) -> OperationResult:
    """Compact position deletes; the table is refreshed."""
    wanted = RewritePositionDeleteFiles(**settings)
    request = request_for(table, Operation.REWRITE_POSITION_DELETE_FILES, wanted)
    try:
        return run_rewrite_deletes(request, context or context_for(table), MEMORY)
    finally:
        table.refresh()


def work_on_deletes(table: Table, **settings: Any) -> Work:
    """What planning says of a compaction of position deletes."""
    files = list(live_files(table.io, snapshot_manifests(table)))
    return position_delete_work(table.metadata, files, RewritePositionDeleteFiles(**settings))


def work(table: Table, **settings: Any) -> Work:
    """What planning says of a rewrite of data files."""
    files = list(live_files(table.io, snapshot_manifests(table)))
    found = rewrite_work(table, RewriteDataFiles(**settings), files)
    assert rewrite_work(table, RewriteDataFiles(**settings)) == found, "it is the same without all files in memory"
    return found


def work_on_manifests(table: Table, **settings: Any) -> Work:
    """What planning says of a rewrite of manifests."""
    return manifest_work(table, RewriteManifests(**settings))


def ids(table: Table) -> list[int]:
    """Ids of all rows, sorted, as pyiceberg's scan reads them."""
    return table.scan(selected_fields=("id",)).to_arrow()["id"].sort().to_pylist()  # type: ignore[no-any-return]
