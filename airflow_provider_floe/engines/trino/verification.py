"""Holds what Trino left behind against what was there before, by the table's metadata and storage."""

from __future__ import annotations

import hashlib

from pyiceberg.manifest import ManifestContent, ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from airflow_provider_floe.engines.changes import Change
from airflow_provider_floe.engines.local.verify import verify_group
from airflow_provider_floe.engines.trino.job import Job
from airflow_provider_floe.errors import VerificationFailed
from airflow_provider_floe.iceberg.manifests import live_files, snapshot_manifests


def verify_rows(job: Job, table: Table, snapshot: Snapshot, change: Change) -> int | None:
    """Rows of a snapshot that was to change none, which are as many as those of its parent, with like values.

    :returns: None where there is no parent to compare with any more.
    :raises VerificationFailed: when they are not.
    """
    parent = snapshot.parent_snapshot_id
    if parent is None or table.metadata.snapshot_by_id(parent) is None:
        return None
    before, after = _rows(job, table, parent), _rows(job, table, snapshot.snapshot_id)
    back = f"roll the table back to snapshot {parent} and report this"
    if before != after:
        raise VerificationFailed(
            f"snapshot {snapshot.snapshot_id}, which Trino committed on {job.request.table}, has {after:,} rows, but "
            f"{before:,} were there before: {back}"
        )
    if change.added and change.expected.files:
        removed = change.expected.rows - change.rows_added
        spec_id = table.metadata.default_spec_id
        try:
            verify_group(table.io, table.schema(), change.expected, removed, change.added, spec_id)
        except VerificationFailed as error:
            wrong = str(error).removesuffix(": nothing was committed")
            raise VerificationFailed(
                f"snapshot {snapshot.snapshot_id}, which Trino committed on {job.request.table}: {wrong}; {back}"
            ) from error
    return after


def _rows(job: Job, table: Table, snapshot_id: int) -> int:
    """As the manifests say; where deletes are to be taken off, as a query counts them."""
    manifests = snapshot_manifests(table, snapshot_id)
    counts = [_manifest_rows(manifest) for manifest in manifests if manifest.content == ManifestContent.DATA]
    if None not in counts and not any(manifest.content == ManifestContent.DELETES for manifest in manifests):
        return sum(count or 0 for count in counts)
    return int(job.session.rows(f"SELECT count(*) FROM {job.table_sql} FOR VERSION AS OF BIGINT '{snapshot_id}'")[0][0])


def _manifest_rows(manifest: ManifestFile) -> int | None:
    if manifest.added_rows_count is None or manifest.existing_rows_count is None:
        return None
    return manifest.added_rows_count + manifest.existing_rows_count


def verify_same_files(job: Job, table: Table, snapshot: Snapshot) -> None:
    """:raises VerificationFailed: when a rewrite of manifests lost, added or changed a file's entry."""
    parent = snapshot.parent_snapshot_id
    if parent is None or table.metadata.snapshot_by_id(parent) is None:
        return
    if _files_digest(table, parent) != _files_digest(table, snapshot.snapshot_id):
        raise VerificationFailed(
            f"snapshot {snapshot.snapshot_id}, which Trino committed on {job.request.table}, does not hold the files "
            f"of its parent: roll the table back to snapshot {parent} and report this"
        )


def _files_digest(table: Table, snapshot_id: int) -> tuple[int, int]:
    """Number of the live files, and a sum over them that does not depend on their order."""
    count = total = 0
    for file in live_files(table.io, snapshot_manifests(table, snapshot_id)):
        entry = repr((file.path, int(file.content), file.record_count, file.sequence_number)).encode()
        total += int.from_bytes(hashlib.blake2b(entry, digest_size=16).digest())
        count += 1
    return count, total
