"""Manifests written anew in which some files are marked as deleted; what stays is copied as it is encoded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from pyiceberg.manifest import ManifestEntry, ManifestFile

from airflow_provider_floe.engines.local.commit import Attempt
from airflow_provider_floe.engines.local.live_index import Gone
from airflow_provider_floe.engines.local.manifest_splice import Shape, Tally, write_manifests
from airflow_provider_floe.engines.local.pyiceberg_manifests import file_key, manifest_header, read_entries
from airflow_provider_floe.errors import VerificationFailed
from airflow_provider_floe.iceberg.files import LiveFile
from airflow_provider_floe.iceberg.manifest_records import (
    Conversion,
    Layout,
    RawEntry,
    conversion,
    encode_long,
    layout,
    layout_of,
    raw_entries,
)
from airflow_provider_floe.iceberg.manifests import DELETED, read_ahead

_STATUS, _SNAPSHOT_ID = 0, 1
_UNASSIGNED = -1


def without(attempt: Attempt, leaving: Sequence[LiveFile]) -> list[ManifestFile]:
    """The head's manifests, those that hold files which leave written anew with these marked as deleted."""
    by_manifest: defaultdict[str, set[str]] = defaultdict(set)
    for file in leaving:
        by_manifest[file.manifest_path].add(file.key)
    manifests = []
    for manifest in attempt.manifests:
        keys = by_manifest.get(manifest.manifest_path)
        if keys:
            manifests.append(_decoded(attempt, manifest, lambda _, entry, keys=keys: file_key(entry.data_file) in keys))  # type: ignore[misc]
        elif manifest.has_added_files() or manifest.has_existing_files():
            manifests.append(manifest)
    return manifests


def without_data(attempt: Attempt, manifests: Sequence[ManifestFile], gone: Gone) -> Iterator[ManifestFile]:
    """Manifests of the head, those in which data files stand that leave written anew with these marked as deleted.

    :raises VerificationFailed: when a manifest does not hold what it was read to hold.
    """
    with closing(read_ahead(attempt.table.io, [one for one in manifests if one.manifest_path in gone])) as found:
        for manifest in manifests:
            if manifest.manifest_path in gone:
                attempt.context.checkpoint()
                leaving = frozenset(gone[manifest.manifest_path].tolist())
                yield from _without_places(attempt, manifest, next(found)[1], leaving)
            else:
                yield manifest


def _without_places(
    attempt: Attempt, manifest: ManifestFile, data: bytes, leaving: frozenset[int]
) -> Sequence[ManifestFile]:
    metadata, spec_id = attempt.table.metadata, manifest.partition_spec_id
    target = layout_of(manifest_header(metadata, manifest.content, spec_id)["avro.schema"].encode())
    how = conversion(layout(data, manifest.manifest_path), target, metadata.format_version > 2)
    if how is not None and [field for field, _ in target.entry[:2]] == [_STATUS, _SNAPSHOT_ID]:
        written = list(_spliced(attempt, manifest, data, how, leaving))
    else:
        written = [_decoded(attempt, manifest, lambda place, _: place in leaving)]
    if sum(one.deleted_files_count or 0 for one in written) != len(leaving):
        raise VerificationFailed(
            f"{manifest.manifest_path} does not hold the {len(leaving):,} files that were read from it: "
            "nothing was committed"
        )
    return written


def _decoded(attempt: Attempt, manifest: ManifestFile, leaves: Callable[[int, ManifestEntry], bool]) -> ManifestFile:
    attempt.context.checkpoint()
    with attempt.writer(manifest.content, manifest.partition_spec_id) as writer:
        for place, entry in enumerate(read_entries(attempt.table.io, manifest)):
            if leaves(place, entry):
                writer.delete(entry)
            else:
                writer.existing(entry)
    return writer.to_manifest_file()


def _spliced(
    attempt: Attempt, manifest: ManifestFile, data: bytes, how: Conversion, leaving: frozenset[int]
) -> Iterator[ManifestFile]:
    entries = [entry for block in raw_entries(manifest, data, how) for entry in block]
    head = _deleted_head(how.target, attempt.snapshot_id)
    encoded: list[RawEntry] = [
        (partition, head + entry[_head_size(entry, how.target) :], records, sequence_number)
        if place in leaving
        else (partition, entry, records, sequence_number)
        for place, (partition, entry, records, sequence_number) in enumerate(entries)
    ]
    shape = Shape(attempt.table.metadata, manifest.content, manifest.partition_spec_id, attempt.snapshot_id, ())
    done = 0
    for written in write_manifests(
        attempt.table.io, shape, encoded, manifest.manifest_length, Tally(), attempt.new_manifest_path
    ):
        begin, done = done, done + sum(count for count, _ in written.blocks)
        places = range(begin, done)
        gone = [entries[place][2] for place in places if place in leaving]
        yield _counted(written.manifest, gone, [entries[place] for place in places if place not in leaving])


def _counted(manifest: ManifestFile, gone: Sequence[int], staying: Sequence[RawEntry]) -> ManifestFile:
    """The manifest as a list of manifests shall describe it: it was written as if all its entries were existing ones.

    :param gone: number of records of each deleted file.
    """
    return ManifestFile.from_args(
        manifest_path=manifest.manifest_path,
        manifest_length=manifest.manifest_length,
        partition_spec_id=manifest.partition_spec_id,
        content=manifest.content,
        sequence_number=manifest.sequence_number,
        min_sequence_number=min((entry[3] for entry in staying), default=_UNASSIGNED),
        added_snapshot_id=manifest.added_snapshot_id,
        added_files_count=0,
        existing_files_count=len(staying),
        deleted_files_count=len(gone),
        added_rows_count=0,
        existing_rows_count=sum(entry[2] for entry in staying),
        deleted_rows_count=sum(gone),
        partitions=manifest.partitions,
        key_metadata=None,
    )


def _deleted_head(target: Layout, snapshot_id: int) -> bytes:
    """Status and snapshot id of a deleted entry."""
    kind = target.entry[1][1]
    branch = encode_long(2 - kind.index("null")) if isinstance(kind, tuple) else b""
    return encode_long(DELETED) + branch + encode_long(snapshot_id)


def _head_size(entry: bytes, target: Layout) -> int:
    """Bytes of the status, a single one, and of the snapshot id of an encoded entry that has one."""
    place = 2 if isinstance(target.entry[1][1], tuple) else 1
    while entry[place] & 0x80:
        place += 1
    return place + 1
