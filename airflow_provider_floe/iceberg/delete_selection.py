"""Which position delete files and deletion vectors are worth compacting. Planning and the engines ask the same.

Data files stay as they are. What a compaction writes is of a good size or alone in its partition, so that the next
one finds nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pyiceberg.table.metadata import TableMetadata

from airflow_provider_floe.iceberg.deletes import DeleteIndex, Place, needed_deletes
from airflow_provider_floe.iceberg.files import FileContent, LiveFile
from airflow_provider_floe.iceberg.selection import SMALL, expected_files
from airflow_provider_floe.iceberg.splitting import split_by_size
from airflow_provider_floe.iceberg.work import Work
from airflow_provider_floe.policies.model import RewritePositionDeleteFiles
from airflow_provider_floe.text import bytes_text, count_text

DEFAULT_TARGET_BYTES = 64 * 1024**2
TARGET_PROPERTY = "write.delete.target-file-size-bytes"
GRANULARITY_PROPERTY = "write.delete.granularity"
"""``file``, which Spark takes where it is not set: one delete file for each data file; or ``partition``."""


@dataclass(frozen=True, slots=True)
class DeleteGroup:
    """Delete files that become fewer: position delete files of one partition, or deletion vectors.

    :ivar files: position delete files; or deletion vectors, of which a Puffin file holds several, and which may be of
        any partitions.
    :ivar stored_in: files in storage that they are in.
    :ivar files_out: files in storage expected.
    """

    files: tuple[LiveFile, ...]
    stored_in: int
    files_out: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the deletes themselves."""
        return sum(file.stored_bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class DeleteSelection:
    """What a compaction of position deletes would touch.

    :ivar by_data_file: position delete files are written for one data file each, as the table asks for.
    :ivar dangling: position delete files and deletion vectors that reach no data file: dropped.
    """

    target_bytes: int
    by_data_file: bool
    groups: tuple[DeleteGroup, ...]
    dangling: tuple[LiveFile, ...]


def delete_target_size(metadata: TableMetadata, settings: RewritePositionDeleteFiles) -> int:
    """Bytes that a delete file should have: by the policy, else by the table, else 64 MiB."""
    if settings.target_file_size_bytes is not None:
        return settings.target_file_size_bytes
    text = metadata.properties.get(TARGET_PROPERTY, "")
    return int(text) if text.isdigit() and int(text) > 0 else DEFAULT_TARGET_BYTES


def select_position_deletes(
    metadata: TableMetadata, files: Sequence[LiveFile], settings: RewritePositionDeleteFiles
) -> DeleteSelection:
    """Choose what to compact and what to drop.

    :param files: all live files of the snapshot; data files that no position delete may reach can be left out.
    """
    target = delete_target_size(metadata, settings)
    index = DeleteIndex(metadata, files)
    data = [file for file in files if file.content is FileContent.DATA]
    needed = needed_deletes(index, data)
    deletes = [file for file in files if file.content is FileContent.POSITION_DELETES]
    kept = [file for file in deletes if file.key in needed]
    by_place: defaultdict[Place, list[LiveFile]] = defaultdict(list)
    for file in kept:
        if not file.is_deletion_vector and file.file_size_bytes < SMALL * target:
            by_place[file.spec_id, file.partition].append(file)
    # from format version 3 on they become deletion vectors, of which one file holds many
    by_data_file = (
        metadata.format_version < 3 and metadata.properties.get(GRANULARITY_PROPERTY, "file").lower() != "partition"
    )
    data_files = Counter((file.spec_id, file.partition) for file in data) if by_data_file else Counter()
    groups = [
        group for place, members in by_place.items() for group in _groups(members, settings, target, data_files[place])
    ]
    vectors = [file for file in kept if file.is_deletion_vector]
    groups += _groups(_in_small_files(vectors, target), settings, target, 0)
    dangling = tuple(file for file in deletes if file.key not in needed)
    return DeleteSelection(target, by_data_file, tuple(groups), dangling)


def _in_small_files(vectors: Iterable[LiveFile], target: int) -> list[LiveFile]:
    """The vectors in Puffin files of which little is in use: vectors that were replaced take up room in them."""
    by_path: defaultdict[str, list[LiveFile]] = defaultdict(list)
    for vector in vectors:
        by_path[vector.path].append(vector)
    return [
        vector for held in by_path.values() if sum(one.stored_bytes for one in held) < SMALL * target for vector in held
    ]


def _groups(
    files: Sequence[LiveFile], settings: RewritePositionDeleteFiles, target: int, data_files: int
) -> Iterable[DeleteGroup]:
    """Those that become fewer by as many as ``minInputFiles`` that become one.

    :param data_files: of the partition, where each gets a delete file of its own, else 0.
    """
    for chunk in split_by_size(files, lambda file: file.stored_bytes, settings.max_file_group_size_bytes):
        stored_in = len({file.path for file in chunk})
        files_out = expected_files(sum(file.stored_bytes for file in chunk), target)
        if data_files:
            named = {file.referenced_data_file for file in chunk}
            files_out = max(files_out, data_files if None in named else len(named))
        if stored_in - files_out >= settings.min_input_files - 1:
            yield DeleteGroup(tuple(chunk), stored_in, files_out)


def position_delete_work(
    metadata: TableMetadata, files: Sequence[LiveFile], settings: RewritePositionDeleteFiles
) -> Work:
    """What compacting position deletes would do: the engine's own selection, in numbers."""
    selection = select_position_deletes(metadata, files, settings)
    total = sum(file.content is FileContent.POSITION_DELETES for file in files)
    stored_in = sum(group.stored_in for group in selection.groups)
    files_out = sum(group.files_out for group in selection.groups)
    size = sum(group.size_bytes for group in selection.groups)
    dangling_bytes = sum(file.stored_bytes for file in selection.dangling)
    parts = []
    if stored_in:
        parts.append(
            f"{stored_in:,} small files of position deletes ({bytes_text(size)}) become about {files_out:,}, of up to "
            f"{bytes_text(selection.target_bytes)}, without rewriting data"
        )
    if selection.dangling:
        parts.append(
            f"{count_text(len(selection.dangling), 'position delete file')} ({bytes_text(dangling_bytes)}) can be "
            "dropped: no data file is left that they apply to"
        )
    if not parts:
        return Work(False, f"none of {count_text(total, 'position delete file')} needs compacting or is dangling")
    return Work(
        True,
        "; ".join(parts),
        files_in=stored_in + len(selection.dangling),
        files_out=files_out,
        bytes_in=size,
        bytes_out=size,
        delete_files=sum(len(group.files) for group in selection.groups) + len(selection.dangling),
    )
