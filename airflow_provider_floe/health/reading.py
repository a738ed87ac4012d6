"""Reads what an assessment needs of a table's current snapshot, once, as deep as the scan mode says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from pyiceberg.manifest import ManifestContent, ManifestFile
from pyiceberg.table import Table

from airflow_provider_floe.health.report import ScanMode
from airflow_provider_floe.iceberg.aggregates import (
    FileAggregate,
    aggregate_files,
    aggregate_manifests,
    sample_manifests,
)
from airflow_provider_floe.iceberg.features import is_encrypted
from airflow_provider_floe.iceberg.files import LiveFile
from airflow_provider_floe.iceberg.manifests import live_files, snapshot_manifests

SAMPLED_DATA_FILES, SAMPLED_DELETE_FILES = 8_000, 2_000
"""Entries that a sample reads, about: whole manifests are drawn, and at least one of each content."""

MAX_KEPT_FILES = 200_000
"""Most live files kept in memory for planning, about 0.5 kB each; larger tables are summed up only."""


@dataclass(frozen=True)
class Reading:
    """What was read.

    :ivar files: sums over the manifests read; None when none was opened.
    :ivar complete: whether ``files`` covers every manifest.
    :ivar live: the live files one by one; None where they were not asked for, not read in full, or too many.
    :ivar notes: what was left out and why, one sentence each.
    """

    manifests: Sequence[ManifestFile]
    files: FileAggregate | None = None
    complete: bool = False
    live: Sequence[LiveFile] | None = None
    notes: tuple[str, ...] = ()


def read_table(table: Table, mode: ScanMode, *, keep_files: bool = False) -> Reading:
    """Read the current snapshot.

    :param keep_files: keep the live files for planning, up to :data:`MAX_KEPT_FILES`.
    :raises TableUnreadable: naming the file that is missing or damaged.
    """
    manifests = snapshot_manifests(table)
    if mode is ScanMode.METADATA:
        return Reading(manifests)
    if is_encrypted(table):
        note = "the table is encrypted: its manifests are not read, so metrics that need them are unknown"
        return Reading(manifests, notes=(note,))
    chosen = manifests if mode is ScanMode.SCAN else _sample(table, manifests)
    complete = len(chosen) == len(manifests)
    if complete and keep_files and (live_file_count(manifests) or 0) <= MAX_KEPT_FILES:
        live = list(islice(live_files(table.io, manifests), MAX_KEPT_FILES + 1))
        if len(live) <= MAX_KEPT_FILES:
            return Reading(manifests, aggregate_files(live), complete, live)
    notes = () if complete else (f"{len(chosen)} of {len(manifests)} manifests were read as a sample",)
    return Reading(manifests, aggregate_manifests(table.io, chosen), complete, notes=notes)


def live_file_count(manifests: Sequence[ManifestFile]) -> int | None:
    """Live files by the manifest list; None where it does not count them, as format version 1 allows."""
    total = 0
    for manifest in manifests:
        if manifest.added_files_count is None or manifest.existing_files_count is None:
            return None
        total += manifest.added_files_count + manifest.existing_files_count
    return total


def split_by_content(manifests: Sequence[ManifestFile]) -> tuple[list[ManifestFile], list[ManifestFile]]:
    """Data manifests and delete manifests."""
    data = [manifest for manifest in manifests if manifest.content == ManifestContent.DATA]
    return data, [manifest for manifest in manifests if manifest.content != ManifestContent.DATA]


def _sample(table: Table, manifests: Sequence[ManifestFile]) -> list[ManifestFile]:
    """Seeded by the snapshot, so that assessing it again finds the same."""
    data, deletes = split_by_content(manifests)
    seed = table.metadata.current_snapshot_id or 0
    return [
        *sample_manifests(data, SAMPLED_DATA_FILES, seed),
        *sample_manifests(deletes, SAMPLED_DELETE_FILES, seed),
    ]
