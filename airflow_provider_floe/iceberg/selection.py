"""Which data files and manifests are worth rewriting. Planning and the local engine ask the same functions.

A rewrite leaves nothing for the next one to find: files that this package wrote carry a mark in their name, a digest
of the settings that shaped them, and a group of files that all bear the mark of the same settings is left alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestContent, ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata

from airflow_provider_floe.iceberg import file_groups
from airflow_provider_floe.iceberg.aggregates import Totals
from airflow_provider_floe.iceberg.candidates import LARGE, SMALL, Candidates, FileRules
from airflow_provider_floe.iceberg.deletes import DeleteIndex, Reach
from airflow_provider_floe.iceberg.file_groups import (
    FileGroup,
    FileGroups,
    FileSource,
    ListedFiles,
    ManifestFiles,
    place_in,
)
from airflow_provider_floe.iceberg.files import FileContent, LiveFile
from airflow_provider_floe.iceberg.filters import MatchingFiles, matching_paths
from airflow_provider_floe.iceberg.grouping import expected_files, group_candidates
from airflow_provider_floe.iceberg.manifest_selection import manifest_work
from airflow_provider_floe.iceberg.manifests import (
    DataRow,
    data_file,
    data_rows,
    live_files,
    read_ahead,
    snapshot_manifests,
)
from airflow_provider_floe.iceberg.marks import marked_snapshots
from airflow_provider_floe.iceberg.work import Work
from airflow_provider_floe.policies.model import RewriteDataFiles
from airflow_provider_floe.text import bytes_text

__all__ = [
    "LARGE",
    "SMALL",
    "FileGroup",
    "Selection",
    "Survey",
    "expected_files",
    "manifest_work",
    "rewrite_mark",
    "rewrite_work",
    "select_rewrite",
    "survey_table",
    "target_file_size",
]

DEFAULT_TARGET_BYTES = 512 * 1024**2
TARGET_PROPERTY = "write.target-file-size-bytes"
MARK_PREFIX = "floe"


@dataclass(frozen=True, slots=True)
class Selection:
    """What a rewrite of data files would touch.

    :ivar groups: in the order in which to rewrite them.
    :ivar dangling: delete files that no data file needs, where the settings ask for their removal.
    """

    target_bytes: int
    mark: str
    groups: Sequence[FileGroup]
    dangling: tuple[LiveFile, ...] = ()


@dataclass(frozen=True)
class Survey:
    """What one pass over the manifests of a snapshot tells a rewrite of data files.

    :ivar groups: those of the selection.
    :ivar deletes: all live delete files.
    :ivar examples: a data file of each format.
    :ivar totals: of the data files of each data manifest, by its path.
    """

    selection: Selection
    groups: FileGroups
    deletes: tuple[LiveFile, ...]
    examples: tuple[LiveFile, ...]
    totals: Mapping[str, Totals]

    @property
    def data_files(self) -> int:
        """Live data files."""
        return sum(one.files for one in self.totals.values())


def target_file_size(metadata: TableMetadata, settings: RewriteDataFiles) -> int:
    """Bytes that a data file should have: by the policy, else by the table, else 512 MiB."""
    if settings.target_file_size_bytes is not None:
        return settings.target_file_size_bytes
    try:
        size = int(metadata.properties.get(TARGET_PROPERTY, DEFAULT_TARGET_BYTES))
    except ValueError:
        size = 0
    return size if size > 0 else DEFAULT_TARGET_BYTES


def rewrite_mark(metadata: TableMetadata, settings: RewriteDataFiles) -> str:
    """What the names of files written with these settings begin with."""
    order = settings.sort_order or settings.z_order_columns
    if settings.strategy == "SORT" and not order:
        order = [str(field) for field in metadata.sort_order().fields]
    shape = (settings.strategy, order, target_file_size(metadata, settings), settings.max_file_group_size_bytes)
    return f"{MARK_PREFIX}-{hashlib.sha256(repr(shape).encode()).hexdigest()[:12]}"


def select_rewrite(
    metadata: TableMetadata,
    files: Sequence[LiveFile],
    settings: RewriteDataFiles,
    matching: frozenset[str] | None = None,
) -> Selection:
    """Choose the groups to rewrite among files that are at hand.

    :param files: all live files of the snapshot, delete files included.
    :param matching: paths of the data files that the settings' filter lets through; None lets all through.
    """
    groups, selection = choose_groups(metadata, files, settings, matching)
    return replace(selection, groups=tuple(groups))


def choose_groups(
    metadata: TableMetadata,
    files: Sequence[LiveFile],
    settings: RewriteDataFiles,
    matching: frozenset[str] | None = None,
) -> tuple[FileGroups, Selection]:
    """As :func:`select_rewrite`, with the groups in columns."""
    choice = _Choice(metadata, (file for file in files if file.content is not FileContent.DATA), settings)
    for place, file in enumerate(files):
        if file.content is FileContent.DATA:
            choice.add(file.spec_id, _row(file), place, chosen=matching is None or file.path in matching)
    return choice.done(ListedFiles(files))


def survey_table(
    io: FileIO,
    metadata: TableMetadata,
    manifests: Sequence[ManifestFile],
    settings: RewriteDataFiles,
    matching: Callable[[ManifestFile], frozenset[str]] | None = None,
    *,
    keep_files: bool = True,
) -> Survey:
    """Choose the groups to rewrite in one pass over the manifests, which are not kept.

    :param matching: paths of a manifest's data files that the settings' filter lets through; None lets all through.
    :param keep_files: candidates are kept as they are read, unless they are too many: then only columns are.
    :raises TableUnreadable: naming the manifest that is missing, damaged or not as Iceberg prescribes.
    """
    data_manifests = [one for one in manifests if one.content == ManifestContent.DATA]
    deletes = tuple(live_files(io, [one for one in manifests if one.content != ManifestContent.DATA]))
    choice = _Choice(metadata, deletes, settings)
    kept: dict[int, LiveFile] | None = {} if keep_files else None
    examples: dict[str, LiveFile] = {}
    totals: dict[str, Totals] = {}
    for number, (manifest, data) in enumerate(read_ahead(io, data_manifests)):
        spec_id, path = manifest.partition_spec_id, manifest.manifest_path
        matched = matching(manifest) if matching is not None else None
        position = size = records = 0
        for row in data_rows(manifest, data):
            size += row[4]
            records += row[3]
            if row[1] not in examples:
                examples[row[1]] = data_file(spec_id, row, path)
            where = place_in(number, position)
            position += 1
            if choice.add(spec_id, row, where, chosen=matched is None or row[0] in matched) and kept is not None:
                kept[where] = data_file(spec_id, row, path)
        totals[path] = Totals(position, size, records)
        if kept is not None and len(kept) > file_groups.MOST_OPEN_FILES:
            kept = None
    stored = ManifestFiles(io, data_manifests, kept)
    groups, selection = choice.done(stored)
    return Survey(selection, groups, deletes, tuple(examples.values()), totals)


class _Choice:
    """Goes through a snapshot's data files one by one."""

    def __init__(self, metadata: TableMetadata, deletes: Iterable[LiveFile], settings: RewriteDataFiles) -> None:
        self._deletes = tuple(deletes)
        index = DeleteIndex(metadata, self._deletes)
        mark = rewrite_mark(metadata, settings)
        marked = marked_snapshots(metadata, mark)
        self._rules = FileRules(metadata, settings, target_file_size(metadata, settings), mark, marked, index)
        self._candidates = Candidates(self._rules)
        self._reach = Reach(index) if settings.remove_dangling_deletes and self._deletes else None

    def add(self, spec_id: int, row: DataRow, where: int, *, chosen: bool) -> bool:
        """Take a data file into account; returns whether it is a candidate.

        :param chosen: the settings' filter lets it through.
        """
        if self._reach is not None and self._rules.deletes.may_touch(row[0], (spec_id, row[2])):
            self._reach.add(data_file(spec_id, row))
        return chosen and self._candidates.add(spec_id, row, where)

    def done(self, source: FileSource) -> tuple[FileGroups, Selection]:
        """The groups, once all files were shown."""
        rules = self._rules
        groups = FileGroups(group_candidates(self._candidates), source, rules.deletes, rules.output_spec_id)
        dangling: tuple[LiveFile, ...] = ()
        if self._reach is not None:
            needed = {delete.key for delete in self._reach.found()}
            dangling = tuple(file for file in self._deletes if file.key not in needed)
        elif rules.settings.remove_dangling_deletes:
            dangling = self._deletes
        return groups, Selection(rules.target, rules.mark, groups, dangling)


def _row(file: LiveFile) -> DataRow:
    return (
        file.path,
        file.file_format,
        file.partition,
        file.record_count,
        file.file_size_bytes,
        file.sequence_number,
        file.snapshot_id,
        file.sort_order_id,
        file.file_sequence_number,
        file.first_row_id,
    )


def rewrite_work(table: Table, settings: RewriteDataFiles, files: Sequence[LiveFile] | None = None) -> Work:
    """What a rewrite of data files would do: the engine's own selection, in numbers.

    :param files: all live files, where they are at hand; the manifests are read otherwise.
    :raises ConfigurationError: when the settings' filter cannot be parsed or names unknown columns.
    """
    if files is None:
        matching = MatchingFiles(table, settings.filter).paths if settings.filter else None
        manifests = snapshot_manifests(table)
        survey = survey_table(table.io, table.metadata, manifests, settings, matching, keep_files=False)
        data, groups, selection = survey.data_files, survey.groups, survey.selection
    else:
        paths = matching_paths(table, settings.filter) if settings.filter else None
        groups, selection = choose_groups(table.metadata, files, settings, paths)
        data = sum(file.content is FileContent.DATA for file in files)
    deletes = {delete.key for delete in (*groups.reached_by(), *selection.dangling)}
    size, files_in = groups.size_bytes, groups.file_count
    files_out = int(groups.columns.files_out.sum())
    target = bytes_text(selection.target_bytes)
    if not files_in:
        if selection.dangling:
            summary = f"{len(selection.dangling):,} delete files apply to no data file and can be dropped"
        else:
            summary = f"none of {data:,} data files needs rewriting for a target of {target}"
        return Work(bool(selection.dangling), summary, delete_files=len(deletes))
    partitions = len(set(groups.columns.place.tolist()))
    summary = (
        f"{_why(groups, selection, settings)} of {data:,} data files in {partitions:,} "
        f"partition{'s' * (partitions != 1)}: rewriting {bytes_text(size)} gives about {files_out:,} "
        f"file{'s' * (files_out != 1)} of up to {target}"
    )
    if deletes:
        summary += f", and applies {len(deletes):,} delete file{'s' * (len(deletes) != 1)}"
    if left := groups.left_text:
        summary += f"; {left}"
    return Work(
        True,
        summary,
        files_in=files_in,
        files_out=files_out,
        bytes_in=size,
        bytes_out=size,
        delete_files=len(deletes),
    )


def _why(groups: FileGroups, selection: Selection, settings: RewriteDataFiles) -> str:
    if settings.strategy != "BINPACK":
        order = settings.strategy.lower()
        return f"{groups.file_count:,} (not yet in {order} order, too small, too large or with deletes)"
    limit = bytes_text(int(SMALL * selection.target_bytes))
    return f"{groups.file_count:,} ({int(groups.columns.small.sum()):,} below {limit})"
