"""``rewrite_manifests``: the same entries in fewer manifests, clustered by partition."""

from __future__ import annotations

import gc
import logging
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from operator import attrgetter
from pathlib import Path

from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import ManifestContent, ManifestFile
from pyiceberg.table import Table

from airflow_provider_floe.engines.base import OperationContext, OperationRequest, OperationResult
from airflow_provider_floe.engines.local.commit import Attempt, Change, commit_replace, delete_quietly
from airflow_provider_floe.engines.local.guards import refuse_metadata
from airflow_provider_floe.engines.local.manifest_splice import (
    Shape,
    Tally,
    clustered,
    write_manifests,
)
from airflow_provider_floe.engines.local.pyiceberg_manifests import manifest_header, manifest_writer, read_entries
from airflow_provider_floe.engines.local.replace import as_text, totals
from airflow_provider_floe.errors import (
    CommitConflict,
    CommitOutcomeUnknown,
    ConfigurationError,
    VerificationFailed,
)
from airflow_provider_floe.iceberg.files import LiveFile
from airflow_provider_floe.iceberg.manifest_records import RawEntry, conversion, layout, layout_of, raw_entries
from airflow_provider_floe.iceberg.manifest_selection import (
    ManifestGroup,
    clustering_fields,
    group_bytes,
    manifest_mark,
    select_manifests,
)
from airflow_provider_floe.iceberg.manifests import live_files, read_ahead, snapshot_manifests
from airflow_provider_floe.iceberg.orphan_search import refuse_overlaps
from airflow_provider_floe.policies.model import RewriteManifests

log = logging.getLogger(__name__)


@dataclass
class _Run:
    request: OperationRequest
    context: OperationContext
    settings: RewriteManifests
    table: Table
    snapshot_id: int
    total_bytes: int
    done_bytes: int = 0
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
    table = context.load_table()
    if (staging := _staging(request, settings)) is not None:
        refuse_overlaps(table, staging, context.other_tables())
    snapshot = table.metadata.current_snapshot()
    if snapshot is None:
        return OperationResult.unchanged(request, None, "the table has no snapshot", started)
    refuse_metadata(table)
    manifests = snapshot_manifests(table)
    groups = select_manifests(table.metadata, manifests, settings, group_bytes(memory_limit_bytes))
    if not groups:
        return OperationResult.unchanged(request, snapshot.snapshot_id, "no manifest needs rewriting", started)
    total = sum(group.size_bytes for group in groups)
    run_ = _Run(request, context, settings, table, table.metadata.new_snapshot_id(), total)
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
    delete_quietly(table, [new.manifest_path for one in rewritten if one not in kept for new in one.manifests])
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


def _staging(request: OperationRequest, settings: RewriteManifests) -> str | None:
    return None if "stagingLocation" in request.ignored_settings else settings.staging_location


@contextmanager
def _cycles_uncollected() -> Iterator[None]:
    """Python looks for cycles in what lives long again and again: in millions of entries, of which none is in one."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_cycles_uncollected()
def _rewrite(run_: _Run, group: ManifestGroup) -> _Rewritten:
    io, metadata = run_.table.io, run_.table.metadata
    target = layout_of(manifest_header(metadata, group.content, group.spec_id)["avro.schema"].encode())
    row_ids = metadata.format_version > 2 and group.content == ManifestContent.DATA
    before = Tally()
    verbatim = True

    def entries() -> Iterator[list[RawEntry]]:
        nonlocal verbatim
        for manifest, data in read_ahead(io, group.manifests):
            run_.context.checkpoint()
            how = conversion(layout(data, manifest.manifest_path), target, row_ids)
            verbatim = verbatim and how is not None and how.verbatim
            if how is None:
                data, how = _encoded_anew(run_, group, manifest), conversion(target, target, row_ids)
            assert how is not None
            for block in raw_entries(manifest, data, how):
                before.add(block)
                yield block
            run_.done_bytes += manifest.manifest_length
            run_.context.progress(run_.done_bytes, run_.total_bytes, "bytes")

    positions = clustering_fields(metadata, run_.settings, group.spec_id)
    shape = Shape(metadata, group.content, group.spec_id, run_.snapshot_id, positions)
    ordered = clustered(entries(), positions)
    after = Tally()
    written = tuple(write_manifests(io, shape, ordered, group.size_bytes, after, lambda: _new_path(run_)))
    del ordered
    manifests = tuple(one.manifest for one in written)
    stored = read_ahead(io, manifests)
    same = before == after and all(one.stands(data) for one, (_, data) in zip(written, stored, strict=True))
    if not (same and (verbatim or _said(io, group.manifests) == _said(io, manifests))):
        raise VerificationFailed(
            f"{before.count:,} entries of {len(group.manifests)} manifests came back as {after.count:,} or changed: "
            "nothing was committed"
        )
    return _Rewritten(group, manifests)


def _encoded_anew(run_: _Run, group: ManifestGroup, manifest: ManifestFile) -> bytes:
    """A manifest of another layout, decoded and encoded as this engine does it, in the local file system."""
    with tempfile.TemporaryDirectory(prefix="floe-manifest-") as folder:
        path = f"{folder}/manifest.avro"
        output = PyArrowFileIO().new_output(f"file://{path}")
        with manifest_writer(run_.table.metadata, group.content, group.spec_id, output, run_.snapshot_id) as writer:
            for entry in read_entries(run_.table.io, manifest):
                writer.existing(entry)
        return Path(path).read_bytes()


def _new_path(run_: _Run) -> str:
    """Where the next manifest goes, written ahead."""
    name = f"{manifest_mark(run_.table.metadata, run_.settings)}-{uuid.uuid4()}.avro"
    if (staging := _staging(run_.request, run_.settings)) is not None:
        path = f"{staging.rstrip('/')}/{name}"
    else:
        path = run_.table.location_provider().new_metadata_location(name)
    run_.context.checkpoint()
    run_.context.journal.record_outputs([path])
    run_.written.append(path)
    return path


def _said(io: FileIO, manifests: Iterable[ManifestFile]) -> int:
    """A sum over what manifests say of their files, but for where they say it."""
    names = [one.name for one in fields(LiveFile) if one.name != "manifest_path"]
    values = attrgetter(*names)
    return sum(hash(values(file)) for file in live_files(io, manifests))


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
