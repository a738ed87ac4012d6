"""Which data files and manifests are worth rewriting. Planning and the local engine ask the same functions.

A rewrite leaves nothing for the next one to find: files that this package wrote carry a mark in their name, a digest
of the settings that shaped them, and a group of files that all bear the mark of the same settings is left alone.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata

from airflow_provider_floe.iceberg.deletes import DeleteIndex, needed_deletes
from airflow_provider_floe.iceberg.files import FileContent, LiveFile
from airflow_provider_floe.iceberg.filters import matching_paths
from airflow_provider_floe.iceberg.manifest_selection import manifest_work
from airflow_provider_floe.iceberg.marks import marked_snapshots
from airflow_provider_floe.iceberg.splitting import split_by_size
from airflow_provider_floe.iceberg.work import Work
from airflow_provider_floe.policies.model import RewriteDataFiles
from airflow_provider_floe.text import bytes_text

__all__ = [
    "FileGroup",
    "Selection",
    "expected_files",
    "manifest_work",
    "rewrite_mark",
    "rewrite_work",
    "select_file_groups",
    "select_rewrite",
    "target_file_size",
]

DEFAULT_TARGET_BYTES = 512 * 1024**2
TARGET_PROPERTY = "write.target-file-size-bytes"
SMALL, LARGE = 0.75, 1.8
"""Files below or above these shares of the target are candidates."""
FEW_FILES = 5
"""Below this many files, a group that is far from a full file and holds a big one waits for company."""
MARK_PREFIX = "floe"


@dataclass(frozen=True, slots=True)
class FileGroup:
    """Files of one partition that are rewritten together.

    :ivar output_spec_id: partition spec of the files to write.
    :ivar files_out: how many files are expected.
    :ivar deletes: the delete files that may remove rows of the group's files.
    """

    spec_id: int
    partition: tuple[Any, ...]
    output_spec_id: int
    files: tuple[LiveFile, ...]
    files_out: int
    deletes: tuple[LiveFile, ...] = ()

    @property
    def moves(self) -> bool:
        """Whether the files are written under another spec than they have."""
        return self.spec_id != self.output_spec_id

    @property
    def size_bytes(self) -> int:
        """Size of the files that are read."""
        return sum(file.file_size_bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class Selection:
    """What a rewrite of data files would touch.

    :ivar dangling: delete files that no data file needs, where the settings ask for their removal.
    """

    target_bytes: int
    mark: str
    groups: tuple[FileGroup, ...]
    dangling: tuple[LiveFile, ...] = ()


def target_file_size(metadata: TableMetadata, settings: RewriteDataFiles) -> int:
    """Bytes that a data file should have: by the policy, else by the table, else 512 MiB."""
    if settings.target_file_size_bytes is not None:
        return settings.target_file_size_bytes
    try:
        size = int(metadata.properties.get(TARGET_PROPERTY, DEFAULT_TARGET_BYTES))
    except ValueError:
        size = 0
    return size if size > 0 else DEFAULT_TARGET_BYTES


def expected_files(size_bytes: int, target_bytes: int) -> int:
    """Into how many files of even size data is written: none is far below or far above the target."""
    return max(1, int(size_bytes / target_bytes + 0.4))


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
    """Choose the groups to rewrite, in the order in which to rewrite them.

    :param files: all live files of the snapshot, delete files included.
    :param matching: paths of the data files that the settings' filter lets through; None lets all through.
    """
    deletes = DeleteIndex(metadata, files)
    mark = rewrite_mark(metadata, settings)
    marked = marked_snapshots(metadata, mark)
    rules = _Rules(metadata, settings, target_file_size(metadata, settings), mark, marked, deletes)
    by_place: defaultdict[tuple[int, tuple[Any, ...]], list[LiveFile]] = defaultdict(list)
    for file in files:
        if file.content is FileContent.DATA and (matching is None or file.path in matching):
            by_place[file.spec_id, file.partition].append(file)
    groups = [group for members in by_place.values() for group in rules.groups(members)]
    dangling: tuple[LiveFile, ...] = ()
    if settings.remove_dangling_deletes:
        needed = needed_deletes(deletes, (file for file in files if file.content is FileContent.DATA))
        dangling = tuple(file for file in files if file.content is not FileContent.DATA and file.key not in needed)
    ordered = tuple(_in_order(groups, settings.rewrite_job_order))
    return Selection(rules.target, rules.mark, ordered, dangling)


def select_file_groups(
    metadata: TableMetadata, files: Sequence[LiveFile], settings: RewriteDataFiles
) -> tuple[FileGroup, ...]:
    """The groups of :func:`select_rewrite`, where the settings have no filter."""
    return select_rewrite(metadata, files, settings).groups


def rewrite_work(table: Table, settings: RewriteDataFiles, files: Sequence[LiveFile]) -> Work:
    """What a rewrite of data files would do: the engine's own selection, in numbers.

    :raises ConfigurationError: when the settings' filter cannot be parsed or names unknown columns.
    """
    matching = matching_paths(table, settings.filter) if settings.filter else None
    selection = select_rewrite(table.metadata, files, settings, matching)
    data = sum(file.content is FileContent.DATA for file in files)
    chosen = [file for group in selection.groups for file in group.files]
    deletes = {delete.key for group in selection.groups for delete in group.deletes}
    deletes |= {delete.key for delete in selection.dangling}
    size = sum(file.file_size_bytes for file in chosen)
    files_out = sum(group.files_out for group in selection.groups)
    target = bytes_text(selection.target_bytes)
    if not chosen:
        if selection.dangling:
            summary = f"{len(selection.dangling):,} delete files apply to no data file and can be dropped"
        else:
            summary = f"none of {data:,} data files needs rewriting for a target of {target}"
        return Work(bool(selection.dangling), summary, delete_files=len(deletes))
    partitions = len({(group.spec_id, group.partition) for group in selection.groups})
    summary = (
        f"{_why(chosen, selection, settings)} of {data:,} data files in {partitions:,} "
        f"partition{'s' * (partitions != 1)}: rewriting {bytes_text(size)} gives about {files_out:,} "
        f"file{'s' * (files_out != 1)} of up to {target}"
    )
    if deletes:
        summary += f", and applies {len(deletes):,} delete file{'s' * (len(deletes) != 1)}"
    return Work(
        True,
        summary,
        files_in=len(chosen),
        files_out=files_out,
        bytes_in=size,
        bytes_out=size,
        delete_files=len(deletes),
    )


def _why(chosen: Sequence[LiveFile], selection: Selection, settings: RewriteDataFiles) -> str:
    if settings.strategy != "BINPACK":
        return f"{len(chosen):,} (not yet in {settings.strategy.lower()} order, too small, too large or with deletes)"
    small = sum(file.file_size_bytes < SMALL * selection.target_bytes for file in chosen)
    limit = bytes_text(int(SMALL * selection.target_bytes))
    return f"{len(chosen):,} ({small:,} below {limit})"


@dataclass(frozen=True)
class _Rules:
    """What is worth rewriting, for one table and one policy.

    :ivar marked: snapshots whose files were written with the settings of the mark.
    """

    metadata: TableMetadata
    settings: RewriteDataFiles
    target: int
    mark: str
    marked: frozenset[int]
    deletes: DeleteIndex

    def groups(self, members: Iterable[LiveFile]) -> list[FileGroup]:
        """The groups of one partition that are worth rewriting."""
        left = [file for file in members if self.is_candidate(file)]
        found: list[FileGroup] = []
        while left:
            chunks = list(
                split_by_size(left, lambda file: file.file_size_bytes, self.settings.max_file_group_size_bytes)
            )
            alone = len(chunks) == 1 and not found
            groups = [self._group(chunk) for chunk in chunks]
            worth = [self.makes_progress(group, alone=alone) for group in groups]
            if not any(worth):
                break
            found += [group for group, good in zip(groups, worth, strict=True) if good]
            # Files between which others were taken are neighbours now, as they will be for the next rewrite.
            left = [file for group, good in zip(groups, worth, strict=True) if not good for file in group.files]
        return found

    def is_candidate(self, file: LiveFile) -> bool:
        """Whether something is wrong with a file."""
        return (
            not SMALL * self.target <= file.file_size_bytes <= LARGE * self.target
            or file.spec_id != self.output_spec_id(file)
            or not self.is_clustered(file)
            or self.has_deletes(file)
        )

    def has_deletes(self, file: LiveFile) -> bool:
        """Whether so many delete files reach a file that they are to be applied."""
        if self.settings.delete_file_threshold == 1:
            return self.deletes.touches(file)
        return len(self.deletes.of(file)) >= self.settings.delete_file_threshold

    def makes_progress(self, group: FileGroup, *, alone: bool) -> bool:
        """Whether rewriting a group leaves the table better off, by more than the next rewrite would find again.

        :param alone: the group holds all candidates of its partition. Only then may it wait for more files to come:
            beside other groups, what they leave behind would count as that company.
        """
        files = group.files
        if group.moves or any(self.has_deletes(file) or not self.is_clustered(file) for file in files):
            return True
        fresh = sum(not self.is_marked(file) for file in files)
        if fresh == 0:
            return False
        if group.files_out > 1 and any(file.file_size_bytes > LARGE * self.target for file in files):
            return True
        if group.files_out >= len(files) or fresh == 1:
            return False
        largest = max(file.file_size_bytes for file in files)
        enough = len(files) >= FEW_FILES or group.size_bytes >= SMALL * self.target or largest <= self.target / 2
        return enough or not alone

    def is_clustered(self, file: LiveFile) -> bool:
        """Whether the file's rows are known to follow the order that the settings ask for, where they ask for one."""
        if self.settings.strategy == "BINPACK" or self.is_marked(file):
            return True
        by_table = self.settings.strategy == "SORT" and not self.settings.sort_order
        order = self.metadata.sort_order()
        return by_table and bool(order.fields) and file.sort_order_id == order.order_id

    def is_marked(self, file: LiveFile) -> bool:
        """Whether a rewrite with these settings wrote the file."""
        # Object store layouts may put a hash before the name
        return self.mark in file.path.rpartition("/")[2] or file.snapshot_id in self.marked

    def output_spec_id(self, file: LiveFile) -> int:
        """The partition spec that the file's rows are to have."""
        return file.spec_id if self.settings.output_spec_id is None else self.settings.output_spec_id

    def _group(self, files: Sequence[LiveFile]) -> FileGroup:
        size = sum(file.file_size_bytes for file in files)
        return FileGroup(
            spec_id=files[0].spec_id,
            partition=files[0].partition,
            output_spec_id=self.output_spec_id(files[0]),
            files=tuple(files),
            files_out=expected_files(size, self.target),
            deletes=tuple(self.deletes.of_all(files)),
        )


def _in_order(groups: list[FileGroup], order: str) -> list[FileGroup]:
    if order == "NONE":
        return groups
    by_bytes = order.startswith("BYTES")
    return sorted(
        groups,
        key=lambda group: group.size_bytes if by_bytes else len(group.files),
        reverse=order.endswith("DESC"),
    )
