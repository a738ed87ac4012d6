"""Replaces data files in a snapshot, and drops delete files that nothing needs any more.

Rewritten files carry the sequence number of the snapshot that was read. So equality deletes that come meanwhile still
apply to them, and appends never conflict. A conflict is only a replaced file that is gone, or a new position delete
that names one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntry, ManifestEntryStatus, ManifestFile

from airflow_provider_floe.engines.local.commit import Attempt, Change, FilesConflict
from airflow_provider_floe.engines.local.pyiceberg_manifests import file_key, read_entries, stored_bytes
from airflow_provider_floe.engines.local.reader import read_positions
from airflow_provider_floe.iceberg.deletes import DeleteIndex, needed_deletes
from airflow_provider_floe.iceberg.files import FileContent, LiveFile
from airflow_provider_floe.iceberg.manifests import first_row_id, live_files


class LiveIndex:
    """Live files by manifest. Manifests never change, so each is read once however often a commit is tried.

    Only the row id from which a manifest's files are counted is told elsewhere, by the manifest list.
    """

    def __init__(self, io: FileIO) -> None:
        self._io = io
        self._files: dict[tuple[str, int | None], list[LiveFile]] = {}

    def files(self, manifests: Sequence[ManifestFile]) -> list[LiveFile]:
        """The live files that these manifests hold."""
        keys = {manifest.manifest_path: (manifest.manifest_path, first_row_id(manifest)) for manifest in manifests}
        unread = [manifest for manifest in manifests if keys[manifest.manifest_path] not in self._files]
        for manifest in unread:
            self._files[keys[manifest.manifest_path]] = []
        for file in live_files(self._io, unread):
            self._files[keys[file.manifest_path]].append(file)
        return [file for manifest in manifests for file in self._files[keys[manifest.manifest_path]]]


@dataclass(frozen=True)
class Replacement:
    """Data files for data files.

    :ivar removed: data files that go.
    :ivar added: data files that come, with their spec id set.
    :ivar sequence_number: data sequence number of the added files; None gives them the commit's own.
    :ivar moved: some files come under another partition spec, where later equality deletes do not find them.
    :ivar known_deletes: keys of the delete files that were live, and applied, when the data was read.
    :ivar droppable: keys of the delete files to drop unless other data still needs them.
    """

    removed: Sequence[LiveFile]
    added: Sequence[DataFile]
    sequence_number: int | None
    moved: bool
    known_deletes: frozenset[str]
    droppable: frozenset[str]

    def change(self, attempt: Attempt, index: LiveIndex) -> Change:
        """The manifests and summary of the new snapshot.

        :raises FilesConflict: naming the files that a concurrent commit removed or put deletes on.
        """
        files = index.files(attempt.manifests)
        gone = frozenset(file.path for file in self.removed)
        self._validate(attempt, files, gone)
        dropped = self._dropped(attempt, files, gone)
        leaving = [file for file in files if file.path in gone and file.content is FileContent.DATA] + dropped
        manifests = without(attempt, leaving)
        added = [(file, self.sequence_number) for file in self.added]
        manifests = [*added_manifests(attempt, ManifestContent.DATA, added), *manifests]
        return Change(manifests, summary(files, leaving, self.added))

    def _validate(self, attempt: Attempt, files: Sequence[LiveFile], gone: frozenset[str]) -> None:
        live = Counter(file.path for file in files if file.path in gone and file.content is FileContent.DATA)
        removed = Counter(file.path for file in self.removed)
        lost = frozenset(path for path, count in removed.items() if live[path] != count)
        if lost:
            raise FilesConflict(
                f"{len(lost)} data files that were being rewritten are no longer live, for example {min(lost)}", lost
            )
        known = {file.path: file.first_row_id for file in self.removed}
        numbered = frozenset(
            file.path for file in files if file.path in gone and file.first_row_id != known.get(file.path)
        )
        if numbered:
            raise FilesConflict(
                f"the rows of {len(numbered)} data files that were being rewritten have been given ids, for example "
                f"those of {min(numbered)}",
                numbered,
            )
        new = [file for file in files if file.content is not FileContent.DATA and file.key not in self.known_deletes]
        if self.sequence_number is not None and not self.moved:
            new = [file for file in new if file.content is FileContent.POSITION_DELETES]
        hit = frozenset(_hit(attempt, self.removed, new))
        if hit:
            raise FilesConflict(
                f"{len(hit)} data files that were being rewritten have got new deletes, for example {min(hit)}", hit
            )

    def _dropped(self, attempt: Attempt, files: Sequence[LiveFile], gone: frozenset[str]) -> list[LiveFile]:
        """The droppable delete files that no data file which stays may need: live ones, whoever added them."""
        candidates = [file for file in files if file.key in self.droppable and file.content is not FileContent.DATA]
        if not candidates:
            return []
        staying = (file for file in files if file.content is FileContent.DATA and file.path not in gone)
        needed = needed_deletes(DeleteIndex(attempt.table.metadata, candidates), staying)
        return [file for file in candidates if file.key not in needed]


def added_manifests(
    attempt: Attempt, content: ManifestContent, added: Iterable[tuple[DataFile, int | None]]
) -> Iterator[ManifestFile]:
    """New manifests of added files with their data sequence numbers, None for the commit's own; one for each spec."""
    by_spec: defaultdict[int, list[tuple[DataFile, int | None]]] = defaultdict(list)
    for file, sequence_number in added:
        by_spec[file.spec_id].append((file, sequence_number))
    for spec_id, members in by_spec.items():
        with attempt.writer(content, spec_id) as writer:
            for file, sequence_number in members:
                writer.add(
                    ManifestEntry.from_args(
                        status=ManifestEntryStatus.ADDED,
                        snapshot_id=attempt.snapshot_id,
                        sequence_number=sequence_number,
                        file_sequence_number=None,
                        data_file=file,
                    )
                )
        yield writer.to_manifest_file()


def _hit(attempt: Attempt, removed: Sequence[LiveFile], new: Sequence[LiveFile]) -> Iterator[str]:
    """Paths of the removed files that new delete files apply to; position deletes are opened to see which they name."""
    deletes = DeleteIndex(attempt.table.metadata, new)
    applicable = {file.path: deletes.of(file) for file in removed}
    paths = pa.array(sorted(path for path, found in applicable.items() if found), pa.string())
    named = {
        delete.key: read_positions(attempt.table.io, delete, paths).keys()
        for delete in {one.key: one for found in applicable.values() for one in found}.values()
        if delete.content is FileContent.POSITION_DELETES and delete.file_format.upper() == "PARQUET"
    }
    for path, found in applicable.items():
        if any(path in named.get(delete.key, (path,)) for delete in found):
            yield path


def without(attempt: Attempt, leaving: Sequence[LiveFile]) -> list[ManifestFile]:
    """The head's manifests, those that hold files which leave written anew with these marked as deleted."""
    by_manifest: defaultdict[str, set[str]] = defaultdict(set)
    for file in leaving:
        by_manifest[file.manifest_path].add(file.key)
    manifests = []
    for manifest in attempt.manifests:
        keys = by_manifest.get(manifest.manifest_path)
        if not keys:
            if manifest.has_added_files() or manifest.has_existing_files():
                manifests.append(manifest)
            continue
        attempt.context.checkpoint()
        with attempt.writer(manifest.content, manifest.partition_spec_id) as writer:
            for entry in read_entries(attempt.table.io, manifest):
                if file_key(entry.data_file) in keys:
                    writer.delete(entry)
                else:
                    writer.existing(entry)
        manifests.append(writer.to_manifest_file())
    return manifests


def summary(files: Sequence[LiveFile], leaving: Sequence[LiveFile], added: Sequence[DataFile]) -> dict[str, str]:
    """Counts of the change, and totals counted over the files themselves rather than carried on from the parent."""
    came = Counter[str]()
    for file in added:
        _count(came, file.content, file.file_format.value, file.record_count, stored_bytes(file))
    went = Counter[str]()
    for gone in leaving:
        _count(went, gone.content, gone.file_format, gone.record_count, gone.stored_bytes)
    changes = {
        "added-data-files": came["data-files"],
        "deleted-data-files": went["data-files"],
        "added-records": came["records"],
        "deleted-records": went["records"],
        "added-files-size": came["files-size"],
        "removed-files-size": went["files-size"],
        "changed-partition-count": len({(file.spec_id, file.partition) for file in leaving}),
    }
    for name in ("delete-files", *_DELETE_KINDS.values(), "position-deletes", "equality-deletes"):
        changes[f"added-{name}"] = came[name]
        changes[f"removed-{name}"] = went[name]
    after = {name: total + came[name[6:]] - went[name[6:]] for name, total in totals(files).items()}
    return {name: str(value) for name, value in changes.items() if value} | as_text(after)


_DELETE_KINDS = {"position": "position-delete-files", "vector": "dvs", "equality": "equality-delete-files"}


def _count(counter: Counter[str], content: int, file_format: str, records: int, size: int) -> None:
    """Count a file in, under the names that a snapshot summary has."""
    counter["files-size"] += size
    if content == FileContent.DATA:
        counter["data-files"] += 1
        counter["records"] += records
        return
    kind = "equality" if content == FileContent.EQUALITY_DELETES else "position"
    counter["delete-files"] += 1
    counter[_DELETE_KINDS["vector" if file_format.upper() == "PUFFIN" else kind]] += 1
    counter[f"{kind}-deletes"] += records


def totals(files: Sequence[LiveFile]) -> dict[str, int]:
    """The totals of a snapshot summary, counted."""
    counter = Counter[str]()
    for file in files:
        _count(counter, file.content, file.file_format, file.record_count, file.stored_bytes)
    names = ("data-files", "delete-files", "records", "files-size", "position-deletes", "equality-deletes")
    return {f"total-{name}": counter[name] for name in names}


def as_text(numbers: Mapping[str, int]) -> dict[str, str]:
    """Numbers as a snapshot summary holds them."""
    return {name: str(value) for name, value in numbers.items()}
