"""``rewrite_position_delete_files``: small position deletes become few, dangling ones go, and no data is rewritten."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pyiceberg.manifest import DataFile, ManifestContent
from pyiceberg.table import Table

from airflow_provider_floe.engines.base import OperationContext, OperationRequest, OperationResult
from airflow_provider_floe.engines.local.commit import (
    Attempt,
    Change,
    Committed,
    FilesConflict,
    commit_replace,
    delete_quietly,
)
from airflow_provider_floe.engines.local.guards import refuse_metadata, refuse_other_formats
from airflow_provider_floe.engines.local.live_index import ReachedIndex
from airflow_provider_floe.engines.local.position_merge import Merge
from airflow_provider_floe.engines.local.pyiceberg_manifests import (
    file_key,
    read_entries,
    referenced_data_file,
    stored_bytes,
)
from airflow_provider_floe.engines.local.removal import without
from airflow_provider_floe.engines.local.replace import added_manifests, summary
from airflow_provider_floe.errors import CommitOutcomeUnknown, ConfigurationError
from airflow_provider_floe.iceberg.delete_selection import DeleteGroup, DeleteSelection, select_position_deletes
from airflow_provider_floe.iceberg.deletes import DeleteIndex, needed_deletes
from airflow_provider_floe.iceberg.files import FileContent, LiveFile
from airflow_provider_floe.iceberg.manifests import snapshot_manifests
from airflow_provider_floe.policies.model import RewritePositionDeleteFiles
from airflow_provider_floe.text import bytes_text, count_text

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Merged:
    """A group and what holds its deletes now, not committed yet."""

    group: DeleteGroup
    files: Sequence[DataFile]
    sequence_number: int


@dataclass
class _Run:
    request: OperationRequest
    context: OperationContext
    table: Table
    index: ReachedIndex
    files: Sequence[LiveFile]
    selection: DeleteSelection
    memory_bytes: int
    written: list[str] = field(default_factory=list)


def run(request: OperationRequest, context: OperationContext, memory_limit_bytes: int) -> OperationResult:
    """Compact and drop what the settings select at the current snapshot of main.

    :raises UnsupportedTableFeature: for tables whose deletes this engine cannot write.
    :raises VerificationFailed: when what was written does not say what was read; nothing was committed.
    :raises CommitConflict: when concurrent commits replaced all of the deletes; nothing was changed.
    :raises CommitOutcomeUnknown: when the catalog did not answer; nothing was deleted.
    """
    started = time.monotonic()
    settings = request.settings
    if not isinstance(settings, RewritePositionDeleteFiles):
        raise ConfigurationError(f"rewrite_position_delete_files needs its own settings, not {type(settings).__name__}")
    table = context.load_table()
    snapshot = table.metadata.current_snapshot()
    if snapshot is None:
        return OperationResult.unchanged(request, None, "the table has no snapshot", started)
    refuse_metadata(table)
    index = ReachedIndex(table.io)
    files = index.files(table.metadata, snapshot_manifests(table))
    selection = select_position_deletes(table.metadata, files, settings)
    if not selection.groups and not selection.dangling:
        message = "no position delete file needs compacting, and none is dangling"
        return OperationResult.unchanged(request, snapshot.snapshot_id, message, started)
    refuse_other_formats(table, [file for group in selection.groups for file in group.files])
    run_ = _Run(request, context, table, index, files, selection, memory_limit_bytes)
    try:
        merged = _merge(run_)
        merged, committed = _commit(run_, snapshot.snapshot_id, merged)
    except CommitOutcomeUnknown:
        raise
    except Exception:
        delete_quietly(table, run_.written)
        raise
    return _result(run_, merged, committed, started)


def _merge(run_: _Run) -> list[_Merged]:
    entries = _entries(run_)
    data = {file.path: file for file in run_.files if file.content is FileContent.DATA}
    index = DeleteIndex(run_.table.metadata, run_.files)
    total = sum(group.size_bytes for group in run_.selection.groups)
    merged: list[_Merged] = []
    done = 0

    def announce(path: str) -> None:
        run_.context.journal.record_outputs([path])
        run_.written.append(path)

    for group in run_.selection.groups:
        merge = Merge(
            table=run_.table,
            files=group.files,
            entries=entries,
            data=data,
            index=index,
            target_bytes=run_.selection.target_bytes,
            by_data_file=run_.selection.by_data_file,
            memory_bytes=run_.memory_bytes // 2,
            announce=announce,
            checkpoint=run_.context.checkpoint,
        )
        merged.append(_Merged(group, merge.run(), merge.sequence_number))
        done += group.size_bytes
        run_.context.progress(done, total, "bytes")
    return merged


def _entries(run_: _Run) -> dict[str, DataFile]:
    """How the manifests describe the files that are merged, partitions typed as they are written."""
    wanted = {file.key: file.manifest_path for group in run_.selection.groups for file in group.files}
    paths = set(wanted.values())
    return {
        file_key(entry.data_file): entry.data_file
        for manifest in snapshot_manifests(run_.table)
        if manifest.manifest_path in paths
        for entry in read_entries(run_.table.io, manifest)
        if file_key(entry.data_file) in wanted
    }


def _commit(run_: _Run, base_snapshot_id: int, merged: list[_Merged]) -> tuple[list[_Merged], Committed]:
    """Commit, without the groups that concurrent commits have overtaken."""
    while True:
        kept = merged
        try:
            committed = commit_replace(
                run_.context,
                run_.request.operation_id,
                base_snapshot_id,
                lambda attempt, kept=kept: _change(run_, attempt, kept),  # type: ignore[misc]
            )
        except FilesConflict as error:
            merged = [one for one in kept if error.paths.isdisjoint(file.key for file in one.group.files)]
            lost = [file.file_path for one in kept if one not in merged for file in one.files]
            delete_quietly(run_.table, sorted(set(lost)))
            if not merged:
                raise
            log.info("%s; going on with the other %d groups", error, len(merged))
        else:
            return merged, committed


def _change(run_: _Run, attempt: Attempt, merged: Sequence[_Merged]) -> Change:
    """Swap the groups' files, and drop what is dangling on this head.

    :raises FilesConflict: naming the delete files that are gone, or whose data files have got other deletion vectors.
    """
    files = run_.index.files(attempt.table.metadata, attempt.manifests)
    live = {file.key: file for file in files}
    _validate(run_, files, merged)
    data = {file.path for file in files if file.content is FileContent.DATA}
    going = {file.key for one in merged for file in one.group.files}
    dangling = {file.key for file in run_.selection.dangling} & live.keys()
    dangling -= needed_deletes(
        DeleteIndex(attempt.table.metadata, [live[key] for key in dangling]),
        (file for file in files if file.content is FileContent.DATA),
    )
    leaving = [file for file in files if file.key in going | dangling]
    added = [
        (file, one.sequence_number)
        for one in merged
        for file in one.files
        # a vector whose data file was rewritten meanwhile would be for nothing
        if (owner := referenced_data_file(file)) is None or owner in data
    ]
    manifests = [*added_manifests(attempt, ManifestContent.DELETES, added), *without(attempt, leaving)]
    deletes = (file for file in files if file.content is not FileContent.DATA)
    data_totals = run_.index.totals(attempt.manifests)
    return Change(manifests, summary(deletes, data_totals, leaving, [file for file, _ in added]))


def _validate(run_: _Run, files: Sequence[LiveFile], merged: Sequence[_Merged]) -> None:
    known = {file.key for file in run_.files}
    live = Counter(file.key for file in files)
    lost = {file.key for one in merged for file in one.group.files if live[file.key] != 1}
    if run_.table.metadata.format_version >= 3:
        # a data file has one vector at most: one that came meanwhile holds deletes that ours does not
        fresh = {file.referenced_data_file for file in files if file.is_deletion_vector and file.key not in known}
        for one in merged:
            if any(referenced_data_file(file) in fresh for file in one.files):
                lost |= {file.key for file in one.group.files}
    if lost:
        raise FilesConflict(
            f"{count_text(len(lost), 'position delete file')} that were being compacted were replaced meanwhile, for "
            f"example {min(lost)}",
            frozenset(lost),
        )


def _result(run_: _Run, merged: Sequence[_Merged], committed: Committed, started: float) -> OperationResult:
    snapshot = committed.table.metadata.snapshot_by_id(committed.snapshot_id)
    told = snapshot.summary.additional_properties if snapshot and snapshot.summary else {}
    removed, added = int(told.get("removed-delete-files", 0)), int(told.get("added-delete-files", 0))
    compacted = sum(len(one.group.files) for one in merged)
    bytes_in = sum(one.group.size_bytes for one in merged)
    bytes_out = sum(stored_bytes(file) for one in merged for file in one.files)
    stored_in = sum(one.group.stored_in for one in merged)
    stored_out = len({file.file_path for one in merged for file in one.files})
    parts = []
    if merged:
        parts.append(
            f"{count_text(stored_in, 'file')} of position deletes ({bytes_text(bytes_in)}) became {stored_out:,} "
            f"({bytes_text(bytes_out)})"
        )
    if removed > compacted:
        parts.append(f"{count_text(removed - compacted, 'dangling delete file')} went")
    if left := len(run_.selection.groups) - len(merged):
        parts.append(f"{count_text(left, 'group')} left for the next run, for others replaced their files meanwhile")
    return OperationResult(
        changed=True,
        message="; ".join(parts) or "nothing was left to drop",
        files_rewritten=removed,
        bytes_rewritten=bytes_in,
        files_added=added,
        bytes_added=bytes_out,
        delete_files_removed=removed - added,
        snapshot_before=committed.parent_snapshot_id,
        snapshot_after=committed.snapshot_id,
        duration_seconds=time.monotonic() - started,
        ignored_settings=run_.request.ignored_settings,
        details={"commits": [committed.snapshot_id], "file_groups": len(merged)},
    )
