"""Rewrite manifests with ``optimize_manifests``."""

from __future__ import annotations

from pyiceberg.manifest import ManifestContent
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot, ancestors_of

from airflow_provider_floe.engines.base import OperationResult, RemoteJob
from airflow_provider_floe.engines.trino.job import QUERY_ID, Ended, Submission, snapshots_of, summary
from airflow_provider_floe.engines.trino.verification import verify_same_files
from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.iceberg.manifest_selection import group_bytes, select_manifests
from airflow_provider_floe.iceberg.manifests import snapshot_manifests
from airflow_provider_floe.policies.model import RewriteManifests

_MEMORY = 1024**3
_CREATED, _REPLACED = "manifests-created", "manifests-replaced"


def submit(job: Submission) -> RemoteJob | OperationResult:
    """Have Trino rewrite the manifests of the current snapshot, where that would leave fewer or better ones."""
    settings = job.request.settings
    if not isinstance(settings, RewriteManifests):
        raise ConfigurationError(f"rewrite_manifests needs settings of rewriteManifests, not {type(settings).__name__}")
    table = job.load_table()
    before = table.metadata.current_snapshot_id
    groups = select_manifests(table.metadata, snapshot_manifests(table), settings, group_bytes(_MEMORY))
    if not any(group.content == ManifestContent.DATA for group in groups):
        left = ", and Trino leaves those of delete files as they are" if groups else ""
        message = f"no manifest of data files needs rewriting{left}"
        return OperationResult(changed=False, message=message, snapshot_before=before, snapshot_after=before)
    detail = {"snapshot_before": before}
    return job.send("optimize_manifests", detail=detail, before=table, facts=detail)


def collect(job: Ended) -> OperationResult:
    """Which manifests were rewritten.

    :raises VerificationFailed: what Trino committed has not the files of before.
    """
    before = job.facts["snapshot_before"]
    job.require(lambda table: bool(_rewrites(job, table)))
    after = job.context.load_table()
    ours = _rewrites(job, after)
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
        details=job.told,
    )


def _rewrites(job: Ended, table: Table) -> list[Snapshot]:
    """The query's own snapshots: some versions do not put its id on those, but then no other rewrite ran meanwhile."""
    if named := snapshots_of(table, job.query_id):
        return named
    found = []
    for snapshot in ancestors_of(table.current_snapshot(), table.metadata):
        if snapshot.snapshot_id == job.facts["snapshot_before"]:
            break
        told = summary(snapshot)
        if _CREATED in told and told.get("engine-name") == "trino" and QUERY_ID not in told:
            found.append(snapshot)
    return found[::-1]
