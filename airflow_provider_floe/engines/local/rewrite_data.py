"""``rewrite_data_files``: writes the rows of small, large, unsorted or deleted-from files anew, and swaps the files."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from pyiceberg.table import Table

from airflow_provider_floe.engines.base import OperationContext, OperationRequest, OperationResult
from airflow_provider_floe.engines.local.commit import Committed, FilesConflict, commit_replace, delete_quietly
from airflow_provider_floe.engines.local.context import Shared
from airflow_provider_floe.engines.local.encodings import Trial
from airflow_provider_floe.engines.local.group_work import OwnBoard, group_digest
from airflow_provider_floe.engines.local.group_writer import GroupWriter
from airflow_provider_floe.engines.local.guards import refuse_unsupported
from airflow_provider_floe.engines.local.handed_over import paths_in
from airflow_provider_floe.engines.local.live_index import DataIndex
from airflow_provider_floe.engines.local.moving import check_output_spec
from airflow_provider_floe.engines.local.ordering import ordering_of
from airflow_provider_floe.engines.local.replace import Replacement
from airflow_provider_floe.engines.local.rewrite_group import Written
from airflow_provider_floe.engines.sharing import GroupBoard, GroupOffer
from airflow_provider_floe.errors import CommitConflict, CommitOutcomeUnknown, ConfigurationError, UnsafeOperation
from airflow_provider_floe.iceberg.file_groups import FileGroups
from airflow_provider_floe.iceberg.filters import MatchingFiles
from airflow_provider_floe.iceberg.lots import lots
from airflow_provider_floe.iceberg.manifests import snapshot_manifests
from airflow_provider_floe.iceberg.selection import Selection, survey_table
from airflow_provider_floe.policies.model import RewriteDataFiles
from airflow_provider_floe.text import bytes_text

log = logging.getLogger(__name__)

MOST_COMMIT_FILES = 1_000_000
"""Files that one commit replaces: up to some 350 bytes each, where others wrote their manifests anew meanwhile."""
MOST_COMMIT_COLUMNS = 250_000
"""Columns of the new files of one commit, some 500 bytes each: what is known of the files waits for it in memory."""


@dataclass(frozen=True)
class _Commit:
    """A commit that went through."""

    parent_snapshot_id: int
    snapshot_id: int
    removed_deletes: int


@dataclass
class _Done:
    """What has been committed, in numbers.

    :ivar groups: their numbers.
    """

    commits: list[_Commit] = field(default_factory=list)
    groups: set[int] = field(default_factory=set)
    groups_copied: int = 0
    files_in: int = 0
    bytes_in: int = 0
    files_out: int = 0
    bytes_out: int = 0

    def add(self, committed: Committed, written: Sequence[Written]) -> None:
        """Count a commit in, and the groups that it was of."""
        removed = _removed_deletes(committed)
        self.commits.append(_Commit(committed.parent_snapshot_id, committed.snapshot_id, removed))
        for one in written:
            self.groups.add(one.group.number)
            self.groups_copied += one.copied
            self.files_in += len(one.group.files)
            self.bytes_in += one.group.size_bytes
            self.files_out += len(one.files)
            self.bytes_out += sum(file.file_size_in_bytes for file in one.files)


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
    groups: FileGroups
    index: DataIndex
    writer: GroupWriter
    board: GroupBoard
    done: _Done = field(default_factory=_Done)
    dropped: set[str] = field(default_factory=set)
    conflicts: list[str] = field(default_factory=list)


def run(
    request: OperationRequest, context: OperationContext, memory_limit_bytes: int, board: GroupBoard | None = None
) -> OperationResult:
    """Rewrite what the settings select at the current snapshot of main.

    :param board: where the file groups are offered to other tasks too; default: this task writes all.
    :raises UnsupportedTableFeature: for tables that this engine cannot rewrite, naming the one that can.
    :raises CommitConflict: when concurrent commits left nothing to replace; nothing was changed, but by commits before.
    :raises VerificationFailed: when new files do not hold the old rows; they were not committed.
    :raises CommitOutcomeUnknown: when the catalog did not answer; nothing was deleted.
    """
    started = time.monotonic()
    run_ = _prepare(request, context, memory_limit_bytes, board or OwnBoard())
    if run_ is None:
        return OperationResult.unchanged(request, None, "the table has no snapshot", started)
    if not run_.groups and not run_.selection.dangling:
        return OperationResult.unchanged(request, run_.snapshot_id, "no data file needs rewriting", started)
    if left := run_.groups.left_text:
        log.info("%s: %s", request.table, left)
    run_.board.offer(run_.snapshot_id, _offers(run_))
    batches = list(_batches(run_.groups, run_.settings, columns=len(run_.table.schema().fields)))
    try:
        for numbers in batches:
            _rewrite_batch(run_, numbers, drop_dangling=numbers is batches[-1])
        if not run_.done.commits:
            raise CommitConflict(f"none of {len(batches)} commits went through: {'; '.join(run_.conflicts)}")
    except CommitOutcomeUnknown:
        raise
    except Exception:
        _discard_handed_in(run_)
        raise
    return _result(run_, started)


def help_write(request: OperationRequest, context: OperationContext, memory_limit_bytes: int, board: GroupBoard) -> int:
    """Write file groups that another task offers, and commits; returns how many.

    :raises UnsafeOperation: when the table's metadata lead to other groups than those that were offered.
    """
    snapshot_id, offers = board.offered()
    run_ = _prepare(request, context, memory_limit_bytes, board, snapshot_id)
    if run_ is None:
        raise UnsafeOperation(f"{request.table}: snapshot {snapshot_id}, whose file groups are offered, is gone")
    if _offers(run_) != list(offers):
        raise UnsafeOperation(
            f"{request.table}: its schema or settings changed since its file groups were offered; they are left to the "
            "task that offers them"
        )
    return run_.writer.write_free(range(len(offers)))


def _offers(run_: _Run) -> list[GroupOffer]:
    schema_id = run_.table.metadata.current_schema_id
    sizes = run_.groups.columns.size.tolist()
    return [
        GroupOffer(number, sizes[number], group_digest(run_.groups, number, run_.selection.mark, schema_id))
        for number in range(len(run_.groups))
    ]


def _prepare(
    request: OperationRequest,
    context: OperationContext,
    memory_bytes: int,
    board: GroupBoard,
    snapshot_id: int | None = None,
) -> _Run | None:
    """What there is to rewrite in a snapshot, by default the current one of main; None when there is no snapshot."""
    settings = request.settings
    if not isinstance(settings, RewriteDataFiles):
        raise ConfigurationError(f"rewrite_data_files needs its own settings, not {type(settings).__name__}")
    context = Shared(context)
    table = context.load_table()
    metadata = table.metadata
    snapshot = metadata.current_snapshot() if snapshot_id is None else metadata.snapshot_by_id(snapshot_id)
    if snapshot is None:
        return None
    manifests = snapshot_manifests(table, snapshot.snapshot_id)
    check_output_spec(table, settings.output_spec_id)
    matching = MatchingFiles(table, settings.filter).paths if settings.filter else None
    survey = survey_table(table.io, table.metadata, manifests, settings, matching)
    refuse_unsupported(table, (*survey.examples, *survey.deletes))
    sequence_number = snapshot.sequence_number if settings.use_starting_sequence_number else None
    return _Run(
        request=request,
        context=context,
        settings=settings,
        table=table,
        snapshot_id=snapshot.snapshot_id,
        sequence_number=sequence_number if table.metadata.format_version > 1 else None,
        known_deletes=frozenset(file.key for file in survey.deletes),
        selection=survey.selection,
        groups=survey.groups,
        index=DataIndex(table.io, survey.totals),
        writer=GroupWriter(
            context=context,
            board=board,
            table=table,
            selection=survey.selection,
            groups=survey.groups,
            manifests=manifests,
            ordering=ordering_of(table, settings),
            trial=Trial(table.metadata.properties, survey.groups.record_count),
            memory_bytes=memory_bytes,
            most_at_a_time=settings.max_concurrent_file_group_rewrites,
        ),
        board=board,
    )


def _batches(groups: FileGroups, settings: RewriteDataFiles, columns: int) -> Iterator[range]:
    """Numbers of the groups of each commit: all in one, or evenly over the commits that partial progress allows.

    What would take too much memory for one commit is spread over several.

    :param columns: of the table.
    """
    commits = min(len(groups), settings.partial_progress_max_commits) if settings.partial_progress_enabled else 1
    bounds = [round(number * len(groups) / max(1, commits)) for number in range(max(1, commits) + 1)]
    weights = np.maximum(
        groups.columns.count / MOST_COMMIT_FILES, groups.columns.files_out * max(1, columns) / MOST_COMMIT_COLUMNS
    )
    for first, last in pairwise(bounds):
        parts = lots(weights[first:last], most=1)
        yield from (range(first + part.start, first + part.stop) for part in parts)
    if not groups:
        yield range(0)


def _rewrite_batch(run_: _Run, numbers: range, *, drop_dangling: bool) -> None:
    written = run_.writer.write(numbers)
    while True:
        try:
            committed = _commit(run_, written, drop_dangling=drop_dangling)
        except FilesConflict as error:
            written, lost = _without(written, error.groups)
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
            run_.done.add(committed, written)
            return


def _may_go_on(run_: _Run) -> bool:
    most = run_.settings.partial_progress_max_failed_commits
    return len(run_.conflicts) <= (run_.settings.partial_progress_max_commits if most is None else most)


def _without(written: Sequence[Written], groups: frozenset[int]) -> tuple[list[Written], list[Written]]:
    kept: list[Written] = []
    lost: list[Written] = []
    for one in written:
        (lost if one.group.number in groups else kept).append(one)
    return kept, lost


def _discard(run_: _Run, written: Sequence[Written]) -> None:
    delete_quietly(run_.table, [file.file_path for one in written for file in one.files])


def _commit(run_: _Run, written: Sequence[Written], *, drop_dangling: bool) -> Committed:
    applied = {delete.key for one in written for delete in one.group.deletes}
    if drop_dangling:
        applied |= {delete.key for delete in run_.selection.dangling}
    replacement = Replacement(
        groups=run_.groups,
        numbers=[one.group.number for one in written],
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


def _discard_handed_in(run_: _Run) -> None:
    """Remove what tasks have written and nobody is going to commit."""
    for number, document in run_.board.finished().items():
        if number not in run_.done.groups:
            delete_quietly(run_.table, paths_in(document))


def _result(run_: _Run, started: float) -> OperationResult:
    done = run_.done
    dropped = sum(one.removed_deletes for one in done.commits)
    parts = [
        f"{done.files_in:,} data files ({bytes_text(done.bytes_in)}) became {done.files_out:,} "
        f"({bytes_text(done.bytes_out)})"
    ]
    if dropped:
        parts[0] += f", and {dropped:,} delete file{'s' * (dropped != 1)} went"
    if run_.conflicts:
        parts.append(f"left for the next run: {'; '.join(run_.conflicts)}")
    if left := run_.groups.left_text:
        parts.append(left)
    return OperationResult(
        changed=True,
        message="; ".join(parts),
        files_rewritten=done.files_in,
        bytes_rewritten=done.bytes_in,
        files_added=done.files_out,
        bytes_added=done.bytes_out,
        delete_files_removed=dropped,
        snapshot_before=done.commits[0].parent_snapshot_id,
        snapshot_after=done.commits[-1].snapshot_id,
        duration_seconds=time.monotonic() - started,
        ignored_settings=run_.request.ignored_settings,
        details={
            "commits": [one.snapshot_id for one in done.commits],
            "file_groups": len(done.groups),
            "file_groups_copied": done.groups_copied,
            "file_groups_left": run_.groups.columns.left_groups,
            "conflicts": run_.conflicts,
        },
    )


def _removed_deletes(committed: Committed) -> int:
    snapshot = committed.table.metadata.snapshot_by_id(committed.snapshot_id)
    summary = snapshot.summary if snapshot else None
    return int((summary.additional_properties if summary else {}).get("removed-delete-files", 0))
