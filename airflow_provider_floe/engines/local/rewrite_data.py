"""``rewrite_data_files``: writes the rows of small, large, unsorted or deleted-from files anew, and swaps the files."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import pairwise
from threading import Event, Lock

from pyiceberg.manifest import DataFile, ManifestFile
from pyiceberg.table import Table

from airflow_provider_floe.engines.base import OperationContext, OperationRequest, OperationResult
from airflow_provider_floe.engines.local.commit import Committed, FilesConflict, commit_replace, delete_quietly
from airflow_provider_floe.engines.local.context import Shared
from airflow_provider_floe.engines.local.encodings import Trial
from airflow_provider_floe.engines.local.guards import refuse_unsupported
from airflow_provider_floe.engines.local.moving import check_output_spec
from airflow_provider_floe.engines.local.ordering import Ordering, ordering_of
from airflow_provider_floe.engines.local.pyiceberg_adapter import ParquetLayout
from airflow_provider_floe.engines.local.replace import LiveIndex, Replacement
from airflow_provider_floe.engines.local.rewrite_group import Written, rewrite_group
from airflow_provider_floe.engines.local.verify import Expectation, expectations
from airflow_provider_floe.errors import CommitConflict, CommitOutcomeUnknown, ConfigurationError
from airflow_provider_floe.iceberg.files import FileContent
from airflow_provider_floe.iceberg.filters import matching_paths
from airflow_provider_floe.iceberg.manifests import snapshot_manifests
from airflow_provider_floe.iceberg.selection import FileGroup, Selection, select_rewrite
from airflow_provider_floe.policies.model import RewriteDataFiles
from airflow_provider_floe.text import bytes_text

log = logging.getLogger(__name__)

MEMORY_PER_GROUP = 256 * 1024**2
"""Groups are rewritten side by side while each has at least so many bytes of memory."""


@dataclass
class _Run:
    """What is known of a table at the snapshot that is rewritten, and what has been done."""

    request: OperationRequest
    context: OperationContext
    settings: RewriteDataFiles
    table: Table
    snapshot_id: int
    sequence_number: int | None
    known_deletes: frozenset[str]
    selection: Selection
    ordering: Ordering
    index: LiveIndex
    manifests: list[ManifestFile]
    trial: Trial
    memory_bytes: int
    commits: list[Committed] = field(default_factory=list)
    done: list[Written] = field(default_factory=list)
    dropped: set[str] = field(default_factory=set)
    conflicts: list[str] = field(default_factory=list)
    bytes_done: int = 0


def run(request: OperationRequest, context: OperationContext, memory_limit_bytes: int) -> OperationResult:
    """Rewrite what the settings select at the current snapshot of main.

    :raises UnsupportedTableFeature: for tables that this engine cannot rewrite, naming the one that can.
    :raises CommitConflict: when concurrent commits left nothing to replace; nothing was changed.
    :raises VerificationFailed: when new files do not hold the old rows; nothing was committed.
    :raises CommitOutcomeUnknown: when the catalog did not answer; nothing was deleted.
    """
    started = time.monotonic()
    settings = request.settings
    if not isinstance(settings, RewriteDataFiles):
        raise ConfigurationError(f"rewrite_data_files needs its own settings, not {type(settings).__name__}")
    run_ = _prepare(request, Shared(context), settings, memory_limit_bytes)
    if run_ is None:
        return _result(None, "the table has no snapshot", started)
    if not run_.selection.groups and not run_.selection.dangling:
        return _result(run_, "no data file needs rewriting", started)
    batches = _batches(run_.selection.groups, settings)
    for number, groups in enumerate(batches):
        _rewrite_batch(run_, groups, drop_dangling=number == len(batches) - 1)
    if not run_.commits:
        raise CommitConflict(f"none of {len(batches)} commits went through: {'; '.join(run_.conflicts)}")
    return _result(run_, None, started)


def _prepare(
    request: OperationRequest, context: OperationContext, settings: RewriteDataFiles, memory_bytes: int
) -> _Run | None:
    table = context.load_table()
    snapshot = table.metadata.current_snapshot()
    if snapshot is None:
        return None
    manifests = snapshot_manifests(table)
    index = LiveIndex(table.io)
    files = index.files(manifests)
    refuse_unsupported(table, files)
    check_output_spec(table, settings.output_spec_id)
    matching = matching_paths(table, settings.filter) if settings.filter else None
    selection = select_rewrite(table.metadata, files, settings, matching)
    sequence_number = snapshot.sequence_number if settings.use_starting_sequence_number else None
    return _Run(
        request=request,
        context=context,
        settings=settings,
        table=table,
        snapshot_id=snapshot.snapshot_id,
        sequence_number=sequence_number if table.metadata.format_version > 1 else None,
        known_deletes=frozenset(file.key for file in files if file.content is not FileContent.DATA),
        selection=selection,
        ordering=ordering_of(table, settings),
        index=index,
        manifests=manifests,
        trial=Trial(
            table.metadata.properties, sum(file.record_count for one in selection.groups for file in one.files)
        ),
        memory_bytes=memory_bytes,
    )


def _batches(groups: Sequence[FileGroup], settings: RewriteDataFiles) -> list[Sequence[FileGroup]]:
    """The groups of each commit: all in one, or about evenly over the commits that partial progress allows."""
    if not settings.partial_progress_enabled or len(groups) < 2:
        return [groups]
    commits = min(len(groups), settings.partial_progress_max_commits)
    bounds = [round(number * len(groups) / commits) for number in range(commits + 1)]
    return [groups[first:last] for first, last in pairwise(bounds)]


def _rewrite_batch(run_: _Run, groups: Sequence[FileGroup], *, drop_dangling: bool) -> None:
    written = _write_groups(run_, groups)
    while True:
        try:
            committed = _commit(run_, written, drop_dangling=drop_dangling)
        except FilesConflict as error:
            written, lost = _without(written, error.paths)
            _discard(run_, lost)
            run_.conflicts.append(str(error))
            if not written:
                if run_.settings.partial_progress_enabled and _may_go_on(run_):
                    return
                raise
            log.info("%s; going on with the other %d groups", error, len(written))
        except CommitOutcomeUnknown:
            raise
        except CommitConflict as error:
            _discard(run_, written)
            run_.conflicts.append(str(error))
            if run_.settings.partial_progress_enabled and _may_go_on(run_):
                return
            raise
        except Exception:
            _discard(run_, written)
            raise
        else:
            run_.commits.append(committed)
            run_.done.extend(written)
            return


def _may_go_on(run_: _Run) -> bool:
    most = run_.settings.partial_progress_max_failed_commits
    return len(run_.conflicts) <= (run_.settings.partial_progress_max_commits if most is None else most)


def _without(written: Sequence[Written], paths: frozenset[str]) -> tuple[list[Written], list[Written]]:
    kept: list[Written] = []
    lost: list[Written] = []
    for one in written:
        (lost if any(file.path in paths for file in one.group.files) else kept).append(one)
    return kept, lost


def _discard(run_: _Run, written: Sequence[Written]) -> None:
    delete_quietly(run_.table, [file.file_path for one in written for file in one.files])


def _commit(run_: _Run, written: Sequence[Written], *, drop_dangling: bool) -> Committed:
    applied = {delete.key for one in written for delete in one.group.deletes}
    if drop_dangling:
        applied |= {delete.key for delete in run_.selection.dangling}
    replacement = Replacement(
        removed=[file for one in written for file in one.group.files],
        added=[file for one in written for file in one.files],
        sequence_number=run_.sequence_number,
        moved=any(one.group.moves for one in written),
        known_deletes=run_.known_deletes,
        droppable=frozenset(applied | run_.dropped),
    )
    run_.dropped |= applied
    return commit_replace(
        run_.context,
        run_.request.operation_id,
        run_.snapshot_id,
        lambda attempt: replacement.change(attempt, run_.index),
    )


def _write_groups(run_: _Run, groups: Sequence[FileGroup]) -> list[Written]:
    """Write and verify the groups' new files, several groups at a time; on failure none of them stays."""
    expected = expectations(run_.table.io, run_.manifests, groups, run_.table.schema())
    workers = max(
        1,
        min(
            run_.settings.max_concurrent_file_group_rewrites,
            len(groups),
            os.cpu_count() or 1,
            run_.memory_bytes // MEMORY_PER_GROUP,
        ),
    )
    announced: list[str] = []
    stop, counting = Event(), Lock()
    layout = ParquetLayout(run_.table.metadata)
    total = sum(group.size_bytes for group in run_.selection.groups)

    def announce(path: str) -> None:
        run_.context.journal.record_outputs([path])
        announced.append(path)

    def read(size: int) -> None:
        if stop.is_set():
            raise InterruptedError("another file group failed")
        run_.context.checkpoint()
        with counting:
            run_.bytes_done += size
            run_.context.progress(run_.bytes_done, total, "bytes")

    def work(group: FileGroup, expectation: Expectation) -> Written:
        return rewrite_group(
            run_.table,
            layout,
            run_.ordering,
            run_.selection,
            group,
            expectation,
            trial=run_.trial,
            memory_bytes=run_.memory_bytes // workers,
            announce=announce,
            progress=read,
        )

    try:
        return list(_in_parallel(work, list(zip(groups, expected, strict=True)), workers, stop))
    except Exception:
        delete_quietly(run_.table, announced)
        raise


def _in_parallel(
    work: Callable[[FileGroup, Expectation], Written],
    jobs: Sequence[tuple[FileGroup, Expectation]],
    workers: int,
    stop: Event,
) -> Iterator[Written]:
    if workers == 1:
        yield from (work(*job) for job in jobs)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="floe-rewrite") as pool:
        futures = [pool.submit(work, *job) for job in jobs]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failures = [one.exception() for one in done if not one.cancelled() and one.exception() is not None]
            if failures:
                raise next(one for one in failures if one is not None)
        finally:
            stop.set()
            for one in futures:
                one.cancel()
    yield from (one.result() for one in futures)


def _result(run_: _Run | None, message: str | None, started: float) -> OperationResult:
    if run_ is None or message is not None:
        snapshot = run_.snapshot_id if run_ else None
        return OperationResult(
            changed=False,
            message=message or "",
            snapshot_before=snapshot,
            snapshot_after=snapshot,
            duration_seconds=time.monotonic() - started,
            ignored_settings=run_.request.ignored_settings if run_ else (),
        )
    removed = [file for one in run_.done for file in one.group.files]
    added: list[DataFile] = [file for one in run_.done for file in one.files]
    last = run_.commits[-1]
    dropped = sum(_removed_deletes(one) for one in run_.commits)
    bytes_in = sum(file.file_size_bytes for file in removed)
    bytes_out = sum(file.file_size_in_bytes for file in added)
    text = f"{len(removed):,} data files ({bytes_text(bytes_in)}) became {len(added):,} ({bytes_text(bytes_out)})"
    if dropped:
        text += f", and {dropped:,} delete file{'s' * (dropped != 1)} went"
    if run_.conflicts:
        text += f"; left for the next run: {'; '.join(run_.conflicts)}"
    return OperationResult(
        changed=True,
        message=text,
        files_rewritten=len(removed),
        bytes_rewritten=bytes_in,
        files_added=len(added),
        bytes_added=bytes_out,
        delete_files_removed=dropped,
        snapshot_before=run_.commits[0].parent_snapshot_id,
        snapshot_after=last.snapshot_id,
        duration_seconds=time.monotonic() - started,
        ignored_settings=run_.request.ignored_settings,
        details={
            "commits": [one.snapshot_id for one in run_.commits],
            "file_groups": len(run_.done),
            "file_groups_copied": sum(one.copied for one in run_.done),
            "conflicts": run_.conflicts,
        },
    )


def _removed_deletes(committed: Committed) -> int:
    snapshot = committed.table.metadata.snapshot_by_id(committed.snapshot_id)
    summary = snapshot.summary if snapshot else None
    return int((summary.additional_properties if summary else {}).get("removed-delete-files", 0))
