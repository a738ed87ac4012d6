"""Rewrite manifests with ``optimize_manifests``."""

from __future__ import annotations

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from airflow_provider_floe.engines.base import OperationResult
from airflow_provider_floe.engines.trino.job import Job, snapshots_of, summary
from airflow_provider_floe.engines.trino.verification import verify_same_files
from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.iceberg.manifest_selection import manifest_work
from airflow_provider_floe.policies.model import RewriteManifests

_CREATED, _REPLACED = "manifests-created", "manifests-replaced"


def run(job: Job) -> OperationResult:
    """Rewrite the manifests of the current snapshot, where that would leave fewer or better ones.

    :raises VerificationFailed: what Trino committed has not the files of before.
    """
    settings = job.request.settings
    if not isinstance(settings, RewriteManifests):
        raise ConfigurationError(f"rewrite_manifests needs settings of rewriteManifests, not {type(settings).__name__}")
    table = job.load_table()
    before = table.metadata.current_snapshot_id
    work = manifest_work(table, settings)
    if not work.found:
        return OperationResult(changed=False, message=work.summary, snapshot_before=before, snapshot_after=before)
    done = job.execute("optimize_manifests", detail={"snapshot_before": before})
    after = job.context.load_table()
    ours = snapshots_of(after, done.query_id) or _new_rewrites(table, after)
    for snapshot in ours:
        verify_same_files(job, after, snapshot)
    if ours:
        job.context.committed({"snapshot_id": ours[-1].snapshot_id})
    created = sum(int(summary(snapshot).get(_CREATED, 0)) for snapshot in ours)
    replaced = sum(int(summary(snapshot).get(_REPLACED, 0)) for snapshot in ours)
    return OperationResult(
        changed=bool(ours),
        message=f"rewrote {replaced} manifests into {created}" if ours else "Trino found no manifest to rewrite",
        manifests_rewritten=replaced,
        manifests_added=created,
        snapshot_before=before,
        snapshot_after=after.metadata.current_snapshot_id,
        details={"query_id": done.query_id, "reported": done.reported},
    )


def _new_rewrites(before: Table, after: Table) -> list[Snapshot]:
    """Rewrites of manifests by Trino since ``before``: some versions do not put the query's id on them."""
    known = {snapshot.snapshot_id for snapshot in before.metadata.snapshots}
    return [
        snapshot
        for snapshot in after.metadata.snapshots
        if snapshot.snapshot_id not in known
        and _CREATED in summary(snapshot)
        and summary(snapshot).get("engine-name") == "trino"
    ]
