"""Rewrite data files with ``optimize``: the files that are too small or have deletes."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_floe.engines.base import OperationResult, RemoteJob
from airflow_provider_floe.engines.changes import change_of
from airflow_provider_floe.engines.trino import sql
from airflow_provider_floe.engines.trino.capabilities import TARGET_SIZE
from airflow_provider_floe.engines.trino.job import Ended, Submission, snapshots_of
from airflow_provider_floe.engines.trino.verification import verify_rows
from airflow_provider_floe.errors import ConfigurationError, UnsupportedSetting
from airflow_provider_floe.iceberg.filters import matching_paths
from airflow_provider_floe.iceberg.manifests import live_files, snapshot_manifests
from airflow_provider_floe.iceberg.selection import SMALL, FileGroup, select_rewrite
from airflow_provider_floe.policies.model import RewriteDataFiles
from airflow_provider_floe.text import bytes_text

_LONGEST_LIST = 900_000
"""Characters: Trino takes statements of up to a million."""


def submit(job: Submission) -> RemoteJob | OperationResult:
    """Have Trino rewrite what the selection finds, as far as it rewrites that.

    :raises UnsupportedSetting: the filter matches more files than one statement can name.
    """
    settings = job.request.settings
    if not isinstance(settings, RewriteDataFiles):
        raise ConfigurationError(
            f"rewrite_data_files needs settings of rewriteDataFiles, not {type(settings).__name__}"
        )
    table = job.load_table()
    files = list(live_files(table.io, snapshot_manifests(table)))
    matching = matching_paths(table, settings.filter) if settings.filter else None
    selection = select_rewrite(table.metadata, files, settings, matching)
    threshold = int(SMALL * selection.target_bytes)
    groups = [group for group in selection.groups if _rewritten(group, threshold)]
    if not groups:
        return OperationResult(
            changed=False,
            message=f"none of {len(files)} files is worth rewriting for {bytes_text(selection.target_bytes)}",
            snapshot_before=table.metadata.current_snapshot_id,
            snapshot_after=table.metadata.current_snapshot_id,
        )
    where = _where(groups, settings.filter) if settings.filter else ""
    if TARGET_SIZE in job.understood:
        target = f"{sql.name(job.catalog)}.{TARGET_SIZE}"
        job.session.rows(f"SET SESSION {target} = {sql.size(selection.target_bytes)}")
    detail = {"snapshot_before": table.metadata.current_snapshot_id}
    # The threshold says which files are small enough to be rewritten, not how large they become
    call = f"optimize(file_size_threshold => {sql.size(threshold)})"
    return job.send(call, where, detail=detail, before=table, facts=detail)


def collect(job: Ended) -> OperationResult:
    """What was rewritten.

    :raises VerificationFailed: what Trino committed has not the rows of before.
    """
    job.require(lambda table: bool(snapshots_of(table, job.query_id)))
    after = job.context.load_table()
    ours = snapshots_of(after, job.query_id)
    changes = [change_of(after, snapshot) for snapshot in ours]
    rows = [verify_rows(job, after, snapshot, change) for snapshot, change in zip(ours, changes, strict=True)]
    if ours:
        job.context.committed({"snapshot_id": ours[-1].snapshot_id})
    rewritten = sum(change.expected.files for change in changes)
    added = sum(len(change.added) for change in changes)
    applied = sum(change.delete_files_removed for change in changes)
    return OperationResult(
        changed=bool(ours),
        message=(
            f"rewrote {rewritten} data files into {added}, applying {applied} delete files"
            if ours
            else "Trino found no file to rewrite"
        ),
        files_rewritten=rewritten,
        bytes_rewritten=sum(change.bytes_removed for change in changes),
        files_added=added,
        bytes_added=sum(change.bytes_added for change in changes),
        delete_files_removed=applied,
        snapshot_before=job.facts["snapshot_before"],
        snapshot_after=after.metadata.current_snapshot_id,
        details={"rows": rows[-1] if rows else None, **job.told},
    )


def _rewritten(group: FileGroup, threshold: int) -> bool:
    """Whether Trino would rewrite the group: it does not split files that are too large."""
    return bool(group.deletes) or sum(file.file_size_bytes < threshold for file in group.files) > 1


def _where(groups: Sequence[FileGroup], text: str) -> str:
    """The files by name: Trino applies predicates over partition columns only."""
    names = ", ".join(sql.text(file.path) for group in groups for file in group.files)
    if len(names) > _LONGEST_LIST:
        count = sum(len(group.files) for group in groups)
        raise UnsupportedSetting(
            f"setting filter={text!r}: {count} files are to be rewritten, more than one statement to Trino can name: "
            "narrow the filter, leave it out, or use engine local or spark"
        )
    return f' WHERE "$path" IN ({names})'
