"""Replaces data files in a snapshot, and drops delete files that nothing needs any more.

Rewritten files carry the sequence number of the snapshot that was read. So equality deletes that come meanwhile still
apply to them, and appends never conflict. A conflict is only a replaced file that is gone, or a new position delete
that names one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntry, ManifestEntryStatus, ManifestFile

from airflow_provider_floe.engines.local.commit import Attempt, Change, FilesConflict
from airflow_provider_floe.engines.local.live_index import DataIndex, Gone, rows_of
from airflow_provider_floe.engines.local.pyiceberg_manifests import stored_bytes
from airflow_provider_floe.engines.local.reader import read_positions
from airflow_provider_floe.engines.local.removal import without, without_data
from airflow_provider_floe.iceberg.aggregates import Totals
from airflow_provider_floe.iceberg.candidate_rows import Ints
from airflow_provider_floe.iceberg.deletes import DeleteIndex
from airflow_provider_floe.iceberg.file_groups import FileGroups, StandingFiles
from airflow_provider_floe.iceberg.files import FileContent, LiveFile
from airflow_provider_floe.iceberg.manifests import data_file, first_row_id


@dataclass(frozen=True)
class Replacement:
    """Data files for data files.

    :ivar groups: of the whole run.
    :ivar numbers: of the groups whose files go.
    :ivar added: data files that come, with their spec id set.
    :ivar sequence_number: data sequence number of the added files; None gives them the commit's own.
    :ivar moved: some files come under another partition spec, where later equality deletes do not find them.
    :ivar known_deletes: keys of the delete files that were live, and applied, when the data was read.
    :ivar droppable: keys of the delete files to drop unless other data still needs them.
    """

    groups: FileGroups
    numbers: Sequence[int]
    added: Sequence[DataFile]
    sequence_number: int | None
    moved: bool
    known_deletes: frozenset[str]
    droppable: frozenset[str]

    def change(self, attempt: Attempt, index: DataIndex) -> Change:
        """The manifests and summary of the new snapshot.

        :raises FilesConflict: naming the files that a concurrent commit removed or put deletes on.
        """
        deletes = index.deletes(attempt.manifests)
        gone = self._gone(attempt, index)
        self._refuse_new_deletes(attempt, deletes)
        dropped = self._dropped(attempt, index, deletes, gone)
        before = totals(deletes, index.totals(attempt.manifests))
        added = [(file, self.sequence_number) for file in self.added]
        manifests = [
            *added_manifests(attempt, ManifestContent.DATA, added),
            *without_data(attempt, without(attempt, dropped), gone),
        ]
        return Change(manifests, self._summary(before, dropped))

    def _gone(self, attempt: Attempt, index: DataIndex) -> Gone:
        """Where the files that go stand in the head: where they stood, unless others wrote manifests anew."""
        head = {manifest.manifest_path: manifest for manifest in attempt.manifests}
        gone: dict[str, Ints] = {}
        moved: list[StandingFiles] = []
        for standing in self.groups.standing(self.numbers):
            now = head.get(standing.manifest.manifest_path)
            if now is None or first_row_id(now) != first_row_id(standing.manifest):
                moved.append(standing)
            else:
                gone[now.manifest_path] = standing.positions
        if not moved:
            return gone
        # Only these are held by their paths
        old = {row[0]: (row[9], group) for _, group, row in rows_of(attempt.table.io, moved)}
        found: defaultdict[str, list[int]] = defaultdict(list)
        numbered: dict[str, int] = {}
        others = [one for one in attempt.manifests if one.manifest_path not in gone]
        for manifest, place, row in index.find(others, old):
            row_id, group = old.pop(row[0])
            if row_id != row[9]:
                numbered[row[0]] = group
            found[manifest.manifest_path].append(place)
        if old:
            raise FilesConflict(
                f"{len(old)} data files that were being rewritten are no longer live, for example {min(old)}",
                frozenset(old),
                frozenset(group for _, group in old.values()),
            )
        if numbered:
            raise FilesConflict(
                f"the rows of {len(numbered)} data files that were being rewritten have been given ids, for example "
                f"those of {min(numbered)}",
                frozenset(numbered),
                frozenset(numbered.values()),
            )
        return gone | {path: np.array(places, np.int32) for path, places in found.items()}

    def _refuse_new_deletes(self, attempt: Attempt, deletes: Sequence[LiveFile]) -> None:
        new = [file for file in deletes if file.key not in self.known_deletes]
        if self.sequence_number is not None and not self.moved:
            new = [file for file in new if file.content is FileContent.POSITION_DELETES]
        if not new:
            return
        index = DeleteIndex(attempt.table.metadata, new)
        applicable: dict[str, tuple[list[LiveFile], int]] = {}
        for manifest, group, row in rows_of(attempt.table.io, self.groups.standing(self.numbers)):
            spec_id = manifest.partition_spec_id
            if index.may_touch(row[0], (spec_id, row[2])) and (found := index.of(data_file(spec_id, row))):
                applicable[row[0]] = found, group
        hit = dict(_hit(attempt, applicable))
        if hit:
            raise FilesConflict(
                f"{len(hit)} data files that were being rewritten have got new deletes, for example {min(hit)}",
                frozenset(hit),
                frozenset(hit.values()),
            )

    def _dropped(self, attempt: Attempt, index: DataIndex, deletes: Sequence[LiveFile], gone: Gone) -> list[LiveFile]:
        """The droppable delete files that no data file which stays may need: live ones, whoever added them."""
        candidates = [file for file in deletes if file.key in self.droppable]
        if not candidates:
            return []
        needed = index.needed(attempt.table.metadata, attempt.manifests, candidates, gone)
        return [file for file in candidates if file.key not in needed]

    def _summary(self, before: Mapping[str, int], dropped: Sequence[LiveFile]) -> dict[str, str]:
        columns, numbers = self.groups.columns, np.asarray(self.numbers, np.int64)
        places = {columns.places[place] for place in columns.place[numbers].tolist()}
        places |= {(file.spec_id, file.partition) for file in dropped}
        went = _counted(dropped)
        went["data-files"] += int(columns.count[numbers].sum())
        went["records"] += int(columns.records[numbers].sum())
        went["files-size"] += int(columns.size[numbers].sum())
        return _changes(before, went, len(places), self.added)


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


def _hit(attempt: Attempt, applicable: Mapping[str, tuple[list[LiveFile], int]]) -> Iterator[tuple[str, int]]:
    """Paths and groups of the files that new delete files apply to; position deletes are opened to see which they name.

    :param applicable: delete files that may apply, and the number of the group, by data file.
    """
    paths = pa.array(sorted(applicable), pa.string())
    named = {
        delete.key: read_positions(attempt.table.io, delete, paths).keys()
        for delete in {one.key: one for found, _ in applicable.values() for one in found}.values()
        if delete.content is FileContent.POSITION_DELETES and delete.file_format.upper() == "PARQUET"
    }
    for path, (found, group) in applicable.items():
        if any(path in named.get(delete.key, (path,)) for delete in found):
            yield path, group


def summary(
    deletes: Iterable[LiveFile], data: Totals, leaving: Sequence[LiveFile], added: Sequence[DataFile]
) -> dict[str, str]:
    """Counts of the change, and totals counted over the files themselves rather than carried on from the parent.

    :param deletes: all live delete files.
    :param data: of the live data files.
    """
    partitions = len({(file.spec_id, file.partition) for file in leaving})
    return _changes(totals(deletes, data), _counted(leaving), partitions, added)


def _changes(
    before: Mapping[str, int], went: Counter[str], partitions: int, added: Sequence[DataFile]
) -> dict[str, str]:
    """A snapshot summary.

    :param before: totals of the head.
    :param went: counts of what leaves.
    :param partitions: number of those that it leaves.
    """
    came = Counter[str]()
    for file in added:
        _count(came, file.content, file.file_format.value, file.record_count, stored_bytes(file))
    changes = {
        "added-data-files": came["data-files"],
        "deleted-data-files": went["data-files"],
        "added-records": came["records"],
        "deleted-records": went["records"],
        "added-files-size": came["files-size"],
        "removed-files-size": went["files-size"],
        "changed-partition-count": partitions,
    }
    for name in ("delete-files", *_DELETE_KINDS.values(), "position-deletes", "equality-deletes"):
        changes[f"added-{name}"] = came[name]
        changes[f"removed-{name}"] = went[name]
    after = {name: total + came[name[6:]] - went[name[6:]] for name, total in before.items()}
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


def _counted(files: Iterable[LiveFile]) -> Counter[str]:
    counter = Counter[str]()
    for file in files:
        _count(counter, file.content, file.file_format, file.record_count, file.stored_bytes)
    return counter


def totals(files: Iterable[LiveFile], others: Totals | None = None) -> dict[str, int]:
    """The totals of a snapshot summary, counted.

    :param others: of data files that are not given one by one.
    """
    counter = _counted(files)
    if others is not None:
        counter.update({"data-files": others.files, "records": others.records, "files-size": others.size_bytes})
    names = ("data-files", "delete-files", "records", "files-size", "position-deletes", "equality-deletes")
    return {f"total-{name}": counter[name] for name in names}


def as_text(numbers: Mapping[str, int]) -> dict[str, str]:
    """Numbers as a snapshot summary holds them."""
    return {name: str(value) for name, value in numbers.items()}
