"""Which manifests are worth rewriting. Planning and the local engine ask the same functions.

As with data files, manifests that this package wrote carry a mark in their name, so that a rewrite leaves nothing for
the next one to find.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import ManifestContent, ManifestFile, PartitionFieldSummary
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata

from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.iceberg.manifests import snapshot_manifests
from airflow_provider_floe.iceberg.marks import marked_snapshots, trino_manifest_rewrites
from airflow_provider_floe.iceberg.splitting import split_by_size
from airflow_provider_floe.iceberg.work import Work
from airflow_provider_floe.policies.model import PartitionSummary, RewriteIf, RewriteManifests
from airflow_provider_floe.text import bytes_text

DEFAULT_TARGET_BYTES = 8 * 1024**2
TARGET_PROPERTY = "commit.manifest.target-size-bytes"
SMALL, LARGE = 0.75, 1.8


@dataclass(frozen=True, slots=True)
class ManifestGroup:
    """Manifests of one content and partition spec that are written anew together.

    :ivar manifests_out: how many are expected.
    """

    content: ManifestContent
    spec_id: int
    manifests: tuple[ManifestFile, ...]
    manifests_out: int

    @property
    def size_bytes(self) -> int:
        """Length of the manifests that are read."""
        return sum(manifest.manifest_length for manifest in self.manifests)


def target_manifest_size(metadata: TableMetadata) -> int:
    """Bytes that a manifest should have, by the table, else 8 MiB."""
    try:
        size = int(metadata.properties.get(TARGET_PROPERTY, DEFAULT_TARGET_BYTES))
    except ValueError:
        size = 0
    return size if size > 0 else DEFAULT_TARGET_BYTES


def manifest_mark(metadata: TableMetadata, settings: RewriteManifests) -> str:
    """What the names of manifests written with these settings begin with."""
    shape = (target_manifest_size(metadata), settings.sort_by)
    return f"floe-{hashlib.sha256(repr(shape).encode()).hexdigest()[:12]}"


def expected_manifests(size_bytes: float, target_bytes: int) -> int:
    """Into how many manifests of even size entries are written."""
    return max(1, int(size_bytes / target_bytes + 0.4))


def clustering_fields(metadata: TableMetadata, settings: RewriteManifests, spec_id: int) -> list[int]:
    """Positions of the partition fields to cluster by, most significant first.

    :raises ConfigurationError: when ``sortBy`` names what is no partition field of any spec.
    """
    every = {field.name for spec in metadata.specs().values() for field in spec.fields}
    unknown = [name for name in settings.sort_by if name not in every]
    if unknown:
        raise ConfigurationError(
            f"sortBy {unknown[0]!r} is no partition field of the table: use one of {', '.join(sorted(every)) or 'none'}"
        )
    names = [field.name for field in metadata.specs()[spec_id].fields]
    return [names.index(name) for name in settings.sort_by if name in names] or list(range(len(names)))


def select_manifests(
    metadata: TableMetadata, manifests: Sequence[ManifestFile], settings: RewriteManifests, most_bytes: int
) -> tuple[ManifestGroup, ...]:
    """Choose the manifests to rewrite.

    Candidates are manifests far below or above the target size, and, under a partitioned spec, those that no rewrite
    with these settings has clustered yet.

    :param most_bytes: a group's manifests have at most so many bytes together, unless one alone has more.
    """
    target = target_manifest_size(metadata)
    mark = manifest_mark(metadata, settings)
    marked = marked_snapshots(metadata, mark)
    if not settings.sort_by:
        marked |= trino_manifest_rewrites(metadata)
    by_kind: defaultdict[tuple[ManifestContent, int], list[ManifestFile]] = defaultdict(list)
    for manifest in manifests:
        spec = metadata.specs()[manifest.partition_spec_id]
        if settings.spec_id is not None and settings.spec_id != manifest.partition_spec_id:
            continue
        if settings.rewrite_if is not None and not matches(manifest, settings.rewrite_if, metadata, spec):
            continue
        clustered = spec.is_unpartitioned() or _marked(manifest, mark, marked)
        if not clustered or not SMALL * target <= manifest.manifest_length <= LARGE * target:
            by_kind[manifest.content, manifest.partition_spec_id].append(manifest)
    groups: list[ManifestGroup] = []
    for (content, spec_id), left in by_kind.items():
        spec = metadata.specs()[spec_id]
        while left:
            chunks = [
                _group(content, spec_id, chunk, target)
                for chunk in split_by_size(left, lambda one: one.manifest_length, most_bytes)
            ]
            worth = [_makes_progress(group, spec, target, mark, marked) for group in chunks]
            if not any(worth):
                break
            groups += [group for group, good in zip(chunks, worth, strict=True) if good]
            # Manifests between which others were taken are neighbours now, as they will be for the next rewrite.
            left = [one for group, good in zip(chunks, worth, strict=True) if not good for one in group.manifests]
    return tuple(groups)


def manifest_work(table: Table, settings: RewriteManifests, memory_limit_bytes: int = 1024**3) -> Work:
    """What a rewrite of manifests would do: the engine's own selection, in numbers."""
    manifests = snapshot_manifests(table)
    groups = select_manifests(table.metadata, manifests, settings, group_bytes(memory_limit_bytes))
    target = target_manifest_size(table.metadata)
    if not groups:
        return Work(False, f"none of {len(manifests):,} manifests needs rewriting for a target of {bytes_text(target)}")
    manifests_in = sum(len(group.manifests) for group in groups)
    manifests_out = sum(group.manifests_out for group in groups)
    size = sum(group.size_bytes for group in groups)
    return Work(
        True,
        f"{manifests_in:,} of {len(manifests):,} manifests ({bytes_text(size)}) are small, large or not clustered "
        f"by partition: rewriting them gives about {manifests_out:,} of up to {bytes_text(target)}",
        bytes_in=size,
        bytes_out=size,
        manifests_in=manifests_in,
        manifests_out=manifests_out,
    )


def group_bytes(memory_limit_bytes: int) -> int:
    """Manifest bytes whose entries, decoded, fit the memory limit with room to spare."""
    return max(1024**2, memory_limit_bytes // 16)


def matches(manifest: ManifestFile, condition: RewriteIf, metadata: TableMetadata, spec: PartitionSpec) -> bool:
    """Whether a manifest's entry in the manifest list equals every value of the condition."""
    found: Mapping[str, Any] = {
        "path": manifest.manifest_path,
        "length": manifest.manifest_length,
        "spec_id": manifest.partition_spec_id,
        "content": "DATA" if manifest.content == ManifestContent.DATA else "DELETES",
        "sequence_number": manifest.sequence_number,
        "min_sequence_number": manifest.min_sequence_number,
        "snapshot_id": manifest.added_snapshot_id,
        "added_files_count": manifest.added_files_count,
        "existing_files_count": manifest.existing_files_count,
        "deleted_files_count": manifest.deleted_files_count,
        "added_rows_count": manifest.added_rows_count,
        "existing_rows_count": manifest.existing_rows_count,
        "deleted_rows_count": manifest.deleted_rows_count,
        "first_row_id": getattr(manifest, "first_row_id", None),
        "key_metadata": manifest.key_metadata.hex() if manifest.key_metadata else None,
    }
    for name, value in found.items():
        wanted = getattr(condition, name)
        if wanted is not None and wanted != value:
            return False
    if condition.partition_summaries is None:
        return True
    summaries = manifest.partitions or []
    types = [field.field_type for field in spec.partition_type(metadata.schema()).fields]
    return len(summaries) == len(condition.partition_summaries) and all(
        _summary_matches(summary, wanted, kind)
        for summary, wanted, kind in zip(summaries, condition.partition_summaries, types, strict=True)
    )


def _summary_matches(summary: PartitionFieldSummary, wanted: PartitionSummary, kind: Any) -> bool:
    bounds = [
        None if bound is None else str(from_bytes(kind, bound)) for bound in (summary.lower_bound, summary.upper_bound)
    ]
    found = (summary.contains_null, summary.contains_nan, *bounds)
    asked = (wanted.contains_null, wanted.contains_nan, wanted.lower_bound, wanted.upper_bound)
    return all(one is None or one == other for one, other in zip(asked, found, strict=True))


def _marked(manifest: ManifestFile, mark: str, marked: frozenset[int]) -> bool:
    return manifest.manifest_path.rpartition("/")[2].startswith(mark) or manifest.added_snapshot_id in marked


def _group(content: ManifestContent, spec_id: int, chunk: Sequence[ManifestFile], target: int) -> ManifestGroup:
    size = sum(manifest.manifest_length for manifest in chunk)
    return ManifestGroup(content, spec_id, tuple(chunk), expected_manifests(size, target))


def _makes_progress(group: ManifestGroup, spec: PartitionSpec, target: int, mark: str, marked: frozenset[int]) -> bool:
    fresh = [manifest for manifest in group.manifests if not _marked(manifest, mark, marked)]
    if not fresh:
        return False
    if group.manifests_out > 1 and any(one.manifest_length > LARGE * target for one in fresh):
        return True
    if len(fresh) < 2:
        return False
    unclustered = not spec.is_unpartitioned() and any(one.manifest_length >= SMALL * target for one in fresh)
    return group.manifests_out < len(group.manifests) or unclustered
