"""``rewrite_manifests``: the same entries in fewer manifests, clustered by partition."""

from __future__ import annotations

import hashlib
import logging
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFileContent, ManifestEntry, ManifestFile, ManifestWriter
from pyiceberg.table import Table

from airflow_provider_floe.engines.base import OperationContext, OperationRequest, OperationResult
from airflow_provider_floe.engines.local.commit import Attempt, Change, commit_replace, delete_quietly
from airflow_provider_floe.engines.local.guards import refuse_metadata
from airflow_provider_floe.engines.local.pyiceberg_manifests import manifest_writer, read_entries
from airflow_provider_floe.engines.local.replace import as_text, totals
from airflow_provider_floe.errors import (
    CommitConflict,
    CommitOutcomeUnknown,
    ConfigurationError,
    UnsupportedSetting,
    VerificationFailed,
)
from airflow_provider_floe.iceberg.manifest_selection import (
    ManifestGroup,
    clustering_fields,
    expected_manifests,
    group_bytes,
    manifest_mark,
    select_manifests,
    target_manifest_size,
)
from airflow_provider_floe.iceberg.manifests import live_files, snapshot_manifests
from airflow_provider_floe.policies.model import RewriteManifests

log = logging.getLogger(__name__)

STAGING_REFUSED = "the local engine writes manifests to the table's metadata folder at once: use engine spark"

_CHECK_EVERY = 1_000
"""Entries between two looks at the size written."""


@dataclass
class _Run:
    request: OperationRequest
    context: OperationContext
    settings: RewriteManifests
    table: Table
    snapshot_id: int
    written: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Rewritten:
    """A group and the manifests that hold its live entries now."""

    group: ManifestGroup
    manifests: tuple[ManifestFile, ...]


def run(request: OperationRequest, context: OperationContext, memory_limit_bytes: int) -> OperationResult:
    """Rewrite the manifests that the settings select at the current snapshot of main.

    :raises UnsupportedTableFeature: for tables whose manifests this engine cannot write.
    :raises VerificationFailed: when entries differ afterwards; nothing was committed.
    :raises CommitConflict: when concurrent commits replaced all of the manifests; nothing was changed.
    :raises CommitOutcomeUnknown: when the catalog did not answer; nothing was deleted.
    """
    started = time.monotonic()
    settings = request.settings
    if not isinstance(settings, RewriteManifests):
        raise ConfigurationError(f"rewrite_manifests needs its own settings, not {type(settings).__name__}")
    if settings.staging_location is not None and "stagingLocation" not in request.ignored_settings:
        raise UnsupportedSetting(f"setting stagingLocation={settings.staging_location!r}: {STAGING_REFUSED}")
    table = context.load_table()
    snapshot = table.metadata.current_snapshot()
    if snapshot is None:
        return _unchanged(request, None, "the table has no snapshot", started)
    refuse_metadata(table)
    manifests = snapshot_manifests(table)
    groups = select_manifests(table.metadata, manifests, settings, group_bytes(memory_limit_bytes))
    if not groups:
        return _unchanged(request, snapshot.snapshot_id, "no manifest needs rewriting", started)
    run_ = _Run(request, context, settings, table, table.metadata.new_snapshot_id())
    try:
        rewritten = [_rewrite(run_, group) for group in groups]
        committed = commit_replace(
            context,
            request.operation_id,
            snapshot.snapshot_id,
            lambda attempt: _change(attempt, rewritten),
            run_.snapshot_id,
        )
    except CommitOutcomeUnknown:
        raise
    except Exception:
        delete_quietly(table, run_.written)
        raise
    now = {one.manifest_path for one in snapshot_manifests(committed.table, committed.snapshot_id)}
    kept = [one for one in rewritten if any(new.manifest_path in now for new in one.manifests) or not one.manifests]
    before = sum(len(one.group.manifests) for one in kept)
    after = sum(len(one.manifests) for one in kept)
    return OperationResult(
        changed=True,
        message=f"{before:,} manifests became {after:,}",
        manifests_rewritten=before,
        manifests_added=after,
        bytes_rewritten=sum(one.group.size_bytes for one in kept),
        bytes_added=sum(new.manifest_length for one in kept for new in one.manifests),
        snapshot_before=committed.parent_snapshot_id,
        snapshot_after=committed.snapshot_id,
        duration_seconds=time.monotonic() - started,
        ignored_settings=request.ignored_settings,
    )


def _unchanged(request: OperationRequest, snapshot_id: int | None, message: str, started: float) -> OperationResult:
    return OperationResult(
        changed=False,
        message=message,
        snapshot_before=snapshot_id,
        snapshot_after=snapshot_id,
        duration_seconds=time.monotonic() - started,
        ignored_settings=request.ignored_settings,
    )


def _rewrite(run_: _Run, group: ManifestGroup) -> _Rewritten:
    entries: list[ManifestEntry] = []
    for manifest in group.manifests:
        run_.context.checkpoint()
        entries += read_entries(run_.table.io, manifest)
    positions = clustering_fields(run_.table.metadata, run_.settings, group.spec_id)
    entries.sort(key=lambda entry: _cluster_key(entry, positions))
    written = tuple(_write(run_, group, entries))
    before = _digest(entries)
    del entries
    after = _digest(_read(run_.table.io, written))
    if before != after:
        raise VerificationFailed(
            f"{before[0]:,} entries of {len(group.manifests)} manifests came back as {after[0]:,} or changed: "
            "nothing was committed"
        )
    return _Rewritten(group, written)


def _cluster_key(entry: ManifestEntry, positions: Sequence[int]) -> tuple[Any, ...]:
    """By partition values, NULL first, then by file path, near which related files lie."""
    values = (entry.data_file.partition[position] for position in positions)
    return (*((value is not None, value if value is not None else 0) for value in values), entry.data_file.file_path)


def _write(run_: _Run, group: ManifestGroup, entries: Sequence[ManifestEntry]) -> Iterable[ManifestFile]:
    """Write entries as existing ones, into manifests of about even size by the bytes that entries turn out to take."""
    target = target_manifest_size(run_.table.metadata)
    bytes_per_entry = group.size_bytes / max(1, len(entries))
    done = 0
    while done < len(entries):
        to_come = (len(entries) - done) * bytes_per_entry
        share = to_come / expected_manifests(to_come, target)
        first = done
        with _writer(run_, group) as writer:
            while done < len(entries):
                writer.existing(entries[done])
                done += 1
                if (done - first) % _CHECK_EVERY == 0 and writer.tell() >= share:
                    break
        manifest = writer.to_manifest_file()
        bytes_per_entry = manifest.manifest_length / (done - first)
        yield manifest


def _writer(run_: _Run, group: ManifestGroup) -> ManifestWriter:
    metadata = run_.table.metadata
    name = f"{manifest_mark(metadata, run_.settings)}-{uuid.uuid4()}.avro"
    path = run_.table.location_provider().new_metadata_location(name)
    run_.context.checkpoint()
    run_.context.journal.record_outputs([path])
    run_.written.append(path)
    return manifest_writer(metadata, group.content, group.spec_id, run_.table.io.new_output(path), run_.snapshot_id)


def _read(io: FileIO, manifests: Iterable[ManifestFile]) -> Iterable[ManifestEntry]:
    for manifest in manifests:
        yield from read_entries(io, manifest)


def _digest(entries: Iterable[ManifestEntry]) -> tuple[int, int]:
    """Number of entries, and the sum of the hashes of what they say but for their status."""
    count = total = 0
    for entry in entries:
        file = entry.data_file
        text = repr(
            (
                entry.snapshot_id,
                entry.sequence_number,
                entry.file_sequence_number,
                [_plain(file[position]) for position in range(len(file))],
            )
        )
        count += 1
        total += int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")
    return count, total % 2**128


def _plain(value: Any) -> Any:
    """Maps in order of their keys; an absent map equals an empty one; contents as numbers, which version 1 implies."""
    if isinstance(value, DataFileContent):
        return int(value)
    if value is None or isinstance(value, str | int | float | bytes | list):
        return value
    if hasattr(value, "items"):
        return sorted(value.items()) or None
    return value


def _change(attempt: Attempt, rewritten: Sequence[_Rewritten]) -> Change:
    """Swap the groups whose manifests all still stand; those that a concurrent commit has replaced are left alone."""
    standing = {manifest.manifest_path for manifest in attempt.manifests}
    groups = [one for one in rewritten if all(manifest.manifest_path in standing for manifest in one.group.manifests)]
    if not groups:
        raise CommitConflict("all of the manifests that were being rewritten have been replaced meanwhile: run again")
    if len(groups) < len(rewritten):
        log.info("%d of %d groups of manifests were replaced meanwhile", len(rewritten) - len(groups), len(rewritten))
    gone = {manifest.manifest_path for one in groups for manifest in one.group.manifests}
    kept = [manifest for manifest in attempt.manifests if manifest.manifest_path not in gone]
    new = [manifest for one in groups for manifest in one.manifests]
    entries = sum(manifest.existing_files_count or 0 for manifest in new)
    summary = {
        "manifests-created": str(len(new)),
        "manifests-kept": str(len(kept)),
        "manifests-replaced": str(len(gone)),
        "entries-processed": str(entries),
    }
    parent = attempt.head.summary
    known = dict(parent.additional_properties) if parent else {}
    carried = {name: value for name, value in known.items() if name.startswith("total-")}
    if not carried:
        carried = as_text(totals(list(live_files(attempt.table.io, attempt.manifests))))
    return Change([*new, *kept], summary | carried)
