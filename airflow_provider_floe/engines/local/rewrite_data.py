"""``rewrite_data_files``: writes the rows of small, large, unsorted or deleted-from files anew, and swaps the files."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from threading import Event, Lock

from pyiceberg.manifest import DataFile, ManifestFile
from pyiceberg.table import Table

from airflow_provider_floe.engines.base import OperationContext, OperationRequest, OperationResult
from airflow_provider_floe.engines.local.commit import Committed, FilesConflict, commit_replace, delete_quietly
from airflow_provider_floe.engines.local.context import Shared
from airflow_provider_floe.engines.local.encodings import Trial
from airflow_provider_floe.engines.local.group_work import OwnBoard, drain, group_digest, wait_for_others
from airflow_provider_floe.engines.local.guards import refuse_unsupported
from airflow_provider_floe.engines.local.handed_over import file_from_json, file_to_json
from airflow_provider_floe.engines.local.moving import check_output_spec
from airflow_provider_floe.engines.local.ordering import Ordering, ordering_of
from airflow_provider_floe.engines.local.pyiceberg_adapter import ParquetLayout
from airflow_provider_floe.engines.local.replace import LiveIndex, Replacement
from airflow_provider_floe.engines.local.rewrite_group import Written, rewrite_group
from airflow_provider_floe.engines.local.verify import Expectation, expectations, verify_stored
from airflow_provider_floe.engines.sharing import GroupBoard, GroupOffer
from airflow_provider_floe.errors import CommitConflict, CommitOutcomeUnknown, ConfigurationError, UnsafeOperation
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
    board: GroupBoard
    written: dict[int, Written] = field(default_factory=dict)
    commits: list[Committed] = field(default_factory=list)
    done: list[Written] = field(default_factory=list)
    dropped: set[str] = field(default_factory=set)
    conflicts: list[str] = field(default_factory=list)
    bytes_done: int = 0


def run(
    request: OperationRequest, context: OperationContext, memory_limit_bytes: int, board: GroupBoard | None = None
) -> OperationResult:
    """Rewrite what the settings select at the current snapshot of main.

    :param board: where the file groups are offered to other tasks too; default: this task writes all.
    :raises UnsupportedTableFeature: for tables that this engine cannot rewrite, naming the one that can.
    :raises CommitConflict: when concurrent commits left nothing to replace; nothing was changed.
    :raises VerificationFailed: when new files do not hold the old rows; nothing was committed.
    :raises CommitOutcomeUnknown: when the catalog did not answer; nothing was deleted.
    """
    started = time.monotonic()
    run_ = _prepare(request, context, memory_limit_bytes, board or OwnBoard())
    if run_ is None:
        return _result(None, "the table has no snapshot", started)
    if not run_.selection.groups and not run_.selection.dangling:
        return _result(run_, "no data file needs rewriting", started)
    offers = [
        GroupOffer(number, group.size_bytes, _digest(run_, group) if board else "")
        for number, group in enumerate(run_.selection.groups)
    ]
    run_.board.offer(run_.snapshot_id, offers)
    batches = _batches(len(offers), run_.settings)
    try:
        for numbers in batches:
            _rewrite_batch(run_, numbers, drop_dangling=numbers is batches[-1])
        if not run_.commits:
            raise CommitConflict(f"none of {len(batches)} commits went through: {'; '.join(run_.conflicts)}")
    except CommitOutcomeUnknown:
        raise
    except Exception:
        _discard(run_, _handed_in_by_others(run_))
        raise
    return _result(run_, None, started)


def help_write(request: OperationRequest, context: OperationContext, memory_limit_bytes: int, board: GroupBoard) -> int:
    """Write file groups that another task offers, and commits; returns how many.

    :raises UnsafeOperation: when the table's metadata lead to other groups than those that were offered.
    """
    snapshot_id, offers = board.offered()
    run_ = _prepare(request, context, memory_limit_bytes, board, snapshot_id)
    if run_ is None:
        raise UnsafeOperation(f"{request.table}: snapshot {snapshot_id}, whose file groups are offered, is gone")
    found = [_digest(run_, group) for group in run_.selection.groups]
    if found != [offer.digest for offer in offers]:
        raise UnsafeOperation(
            f"{request.table}: its schema or settings changed since its file groups were offered; they are left to the "
            "task that offers them"
        )
    stop, numbers = Event(), range(len(offers))
    return len(drain(board, numbers.stop, _group_writer(run_, numbers, stop), _workers(run_, numbers), stop))


def _digest(run_: _Run, group: FileGroup) -> str:
    return group_digest(group, run_.selection.mark, run_.table.metadata.current_schema_id)


def _prepare(
    request: OperationRequest,
    context: OperationContext,
    memory_bytes: int,
    board: GroupBoard,
    snapshot_id: int | None = None,
) -> _Run | None:
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
        board=board,
    )


def _batches(groups: int, settings: RewriteDataFiles) -> list[range]:
    """Numbers of the groups of each commit: all in one, or evenly over the commits that partial progress allows."""
    if not settings.partial_progress_enabled or groups < 2:
        return [range(groups)]
    commits = min(groups, settings.partial_progress_max_commits)
    bounds = [round(number * groups / commits) for number in range(commits + 1)]
    return [range(first, last) for first, last in pairwise(bounds)]


def _rewrite_batch(run_: _Run, numbers: range, *, drop_dangling: bool) -> None:
    written = _write_groups(run_, numbers)
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


def _write_groups(run_: _Run, numbers: range) -> list[Written]:
    """Write and verify the groups' new files, with other tasks where they help; on failure none of the files stays."""
    stop = Event()
    write = _group_writer(run_, numbers, stop)

    def write_what_is_free() -> None:
        run_.context.checkpoint()
        drain(run_.board, numbers.stop, write, _workers(run_, numbers), stop)

    try:
        write_what_is_free()
        wait_for_others(run_.board, numbers.stop, write_what_is_free)
        others = {one: _by_another(run_, one) for one in numbers if one not in run_.written}
        return [run_.written.pop(one) if one in run_.written else others[one] for one in numbers]
    except Exception:
        _discard(run_, list(run_.written.values()))
        raise


def _workers(run_: _Run, numbers: range) -> int:
    most = run_.settings.max_concurrent_file_group_rewrites
    return max(1, min(most, len(numbers), os.cpu_count() or 1, run_.memory_bytes // MEMORY_PER_GROUP))


def _group_writer(run_: _Run, numbers: range, stop: Event) -> Callable[[int], None]:
    """What writes one of these groups and hands it in; when that fails, its files are gone.

    :param stop: once it is set, whatever is being written ends.
    """
    groups = run_.selection.groups[numbers.start : numbers.stop]
    found = expectations(run_.table.io, run_.manifests, groups, run_.table.schema())
    expected: dict[int, Expectation] = dict(zip(numbers, found, strict=True))
    counting = Lock()
    layout = ParquetLayout(run_.table.metadata)
    total = sum(group.size_bytes for group in run_.selection.groups)
    memory_bytes = run_.memory_bytes // _workers(run_, numbers)

    def read(size: int) -> None:
        if stop.is_set():
            raise InterruptedError("another file group failed")
        run_.context.checkpoint()
        with counting:
            run_.bytes_done += size
            run_.context.progress(run_.bytes_done, total, "bytes")

    def write(number: int) -> None:
        group = run_.selection.groups[number]
        announced: list[str] = []

        def announce(path: str) -> None:
            run_.context.journal.record_outputs([path])
            announced.append(path)

        try:
            written = rewrite_group(
                run_.table,
                layout,
                run_.ordering,
                run_.selection,
                group,
                expected[number],
                trial=run_.trial,
                memory_bytes=memory_bytes,
                announce=announce,
                progress=read,
            )
            files = [file_to_json(file) for file in written.files]
            run_.board.finish(number, {"files": files, "copied": written.copied})
            run_.written[number] = written
        except Exception:
            delete_quietly(run_.table, announced)
            raise

    return write


def _by_another(run_: _Run, number: int) -> Written:
    """What another task handed in.

    :raises VerificationFailed: when its files are not what it said.
    """
    document = run_.board.finished()[number]
    group = run_.selection.groups[number]
    files = tuple(file_from_json(file) for file in document["files"])
    verify_stored(run_.table.io, files, group.output_spec_id)
    run_.bytes_done += group.size_bytes
    log.info("another task has written file group %d (%s)", number, bytes_text(group.size_bytes))
    return Written(group, files, copied=document["copied"])


def _handed_in_by_others(run_: _Run) -> list[Written]:
    """What other tasks have written and nobody is going to commit."""
    committed = {file.file_path for one in run_.done for file in one.files}
    found = []
    for number, document in run_.board.finished().items():
        files = [file_from_json(file) for file in document["files"]]
        if not committed.intersection(file.file_path for file in files):
            found.append(Written(run_.selection.groups[number], files))
    return found


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
