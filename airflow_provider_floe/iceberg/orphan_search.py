"""Find files below a table's location that nothing references."""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from pyiceberg.table import Table

from airflow_provider_floe.errors import RetentionRefused, UnsafeLocation, UnsafeOperation
from airflow_provider_floe.iceberg.file_comparison import Comparison
from airflow_provider_floe.iceberg.found_files import FoundFiles
from airflow_provider_floe.iceberg.listing import ListedFile, file_size, in_batches, list_files, list_in_ranges
from airflow_provider_floe.iceberg.manifests import live_files, snapshot_manifests
from airflow_provider_floe.iceberg.paths import (
    Overlap,
    PathRules,
    is_excluded,
    is_hidden,
    is_metadata_pointer,
    is_under,
    normalise,
    overlap,
    path_key,
    relative_to,
)
from airflow_provider_floe.iceberg.reachability import FileKind, ReachableFile, ReferenceWalk
from airflow_provider_floe.iceberg.retention import undeletable_reason
from airflow_provider_floe.iceberg.work import Work
from airflow_provider_floe.policies.model import OrphanCleanup
from airflow_provider_floe.text import bytes_text

log = logging.getLogger(__name__)

MINIMUM_AGE = timedelta(hours=24)
"""No younger file is an orphan, whatever the policy says: a writer may be about to commit it (promise 10)."""

_WRITE_PATHS = ("write.data.path", "write.metadata.path", "write.object-storage.path", "write.folder-storage.path")
_SPLIT_FROM = 20_000
"""Data files from which on a listing is made in several ranges."""
_RANGES = 8
_SAMPLED = 4
"""Manifests whose files part the ranges."""
_METADATA_FILES_READ = 100
_METADATA_READERS = 8
_METADATA_HEAD = 64 * 1024
_UUID = re.compile(rb'"table-uuid"\s*:\s*"([0-9a-fA-F-]{36})"')
_DEFAULT_MEMORY = 512 * 1024**2


class OtherTable(Protocol):
    """Where another table keeps its files; see :class:`airflow_provider_floe.engines.base.TableLocation`."""

    @property
    def table(self) -> Any:
        """Its name."""

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Empty means that they are not known."""


@dataclass(frozen=True)
class OrphanSearch:
    """What a search found.

    :ivar orphans: files to remove.
    :ivar dead: of the dead outputs asked for, those that exist and nothing references.
    :ivar listed: number of files listed.
    :ivar young: files that nothing references, but too young to remove, or of unknown age.
    :ivar kept: files that nothing references and that are kept by pattern, name or ``prefixMismatchMode``.
    :ivar walk: has walked through everything that the table referenced.
    """

    orphans: FoundFiles
    dead: tuple[ListedFile, ...]
    listed: int
    young: int
    kept: int
    walk: ReferenceWalk

    @property
    def orphan_bytes(self) -> int:
        """Size of the orphans."""
        return self.orphans.size_bytes


class ListingTooLong(Exception):
    """A listing has more files than the caller is willing to look at."""


def find_orphans(
    table: Table,
    settings: OrphanCleanup,
    now: datetime,
    *,
    reload: Callable[[], Table],
    other_tables: Sequence[OtherTable],
    dead_outputs: Collection[str] = (),
    memory_limit_bytes: int = _DEFAULT_MEMORY,
    limit: int | None = None,
    checkpoint: Callable[[], None] = lambda: None,
) -> OrphanSearch:
    """List storage, then load the table again and compute what it references, then compare (promise 2).

    :param table: loaded before the call: what it references must show up in the listing (promise 3).
    :param now: UTC.
    :param reload: loads the table anew; called after the listing.
    :param other_tables: all other tables of the catalog (promise 5).
    :param dead_outputs: files that dead, uncommitted operations wrote: no age guard for them.
    :param limit: most files to list.
    :param checkpoint: called between batches of files; may raise to stop.
    :raises RetentionRefused: the table forbids deletion.
    :raises UnsafeLocation: the location is shared, not the table's, or holds paths that differ in scheme or authority.
    :raises UnsafeOperation: the listing is partial.
    :raises TableUnreadable: what is referenced cannot be read.
    :raises ListingTooLong: there are more files than ``limit``.
    """
    if reason := undeletable_reason(table):
        raise RetentionRefused(f"{'.'.join(table.name())}: {reason}")
    root = search_root(table, settings)
    refuse_overlaps(table, root, other_tables)
    rules = PathRules.of(settings.equal_schemes, settings.equal_authorities)
    with Comparison(normalise(root, rules), rules, memory_limit_bytes) as comparison:
        points = split_points(table)
        for batch in list_in_ranges(table.io, root, points) if points else list_files(table.io, root):
            checkpoint()
            comparison.add_listed(batch)
            if limit is not None and comparison.listed > limit:
                raise ListingTooLong(f"the listing has more than {limit} files")
        fresh = reload()
        if fresh.metadata.table_uuid != table.metadata.table_uuid or fresh.location() != table.location():
            raise UnsafeOperation(f"{'.'.join(table.name())} was replaced or moved while it was listed")
        walk = ReferenceWalk()
        _add_referenced(comparison, walk, table, fresh, checkpoint)
        comparison.refuse_partial_listing(root)
        if settings.prefix_mismatch_mode == "ERROR":
            comparison.refuse_mismatches()
        _refuse_foreign_metadata(fresh, comparison, root)
        before = now - max(timedelta(days=settings.retention_period_in_days), MINIMUM_AGE)
        return _sort_out(fresh, settings, comparison, walk, before, dead_outputs)


def orphan_work(table: Table, settings: OrphanCleanup, now: datetime, limit: int) -> Work:
    """What a removal would find, as far as a listing of at most ``limit`` files and no look at other tables tell.

    :param limit: most files to list; 0 never lists.
    """
    if limit == 0:
        return _undecided("storage was not listed")
    try:
        found = find_orphans(
            table,
            settings,
            now,
            reload=lambda: table.catalog.load_table(table.name()),
            other_tables=(),
            limit=limit,
        )
    except ListingTooLong as error:
        return _undecided(str(error))
    except UnsafeOperation as error:
        return Work(found=False, summary="orphan files may not be removed", refusal=str(error))
    count = len(found.orphans)
    return Work(
        found=count > 0,
        summary=f"{count} of {found.listed} files ({bytes_text(found.orphan_bytes)}) are orphans past retention; "
        f"{found.young} more are too young",
        files_in=count,
        bytes_in=found.orphan_bytes,
    )


def search_root(table: Table, settings: OrphanCleanup) -> str:
    """The prefix to list.

    :raises UnsafeLocation: when ``location`` is not the table's, or is the root of a file system or bucket.
    """
    root = settings.location or table.location()
    place = normalise(root)
    if place.path == "/":
        raise UnsafeLocation(f"location {root} is the root of a bucket or file system, which no table owns alone")
    own = [normalise(path) for path in own_prefixes(table)]
    if not any(overlap(place, mine) in (Overlap.EQUAL, Overlap.INSIDE) for mine in own):
        raise UnsafeLocation(
            f"orphanCleanup.location={root} lies outside the table's own {', '.join(own_prefixes(table))}: "
            "name a folder of the table, or leave the setting out"
        )
    return root


def split_points(table: Table) -> list[str]:
    """Paths that part the table's data files into ranges of about even number, by the files of some manifests.

    None for a small table, which is listed as fast in one piece.
    """
    manifests = snapshot_manifests(table)
    files = sum((one.added_files_count or 0) + (one.existing_files_count or 0) for one in manifests)
    if files < _SPLIT_FROM:
        return []
    some = manifests[:: max(1, len(manifests) // _SAMPLED)][:_SAMPLED]
    paths = sorted(file.path for file in live_files(table.io, some))
    return [paths[len(paths) * number // _RANGES] for number in range(1, _RANGES)] if paths else []


def own_prefixes(table: Table) -> tuple[str, ...]:
    """The table's location, and every ``write.*.path`` that it sets."""
    properties = table.metadata.properties
    return (table.location(), *(properties[name] for name in _WRITE_PATHS if properties.get(name)))


def refuse_overlaps(table: Table, root: str, other_tables: Iterable[OtherTable]) -> None:
    """:raises UnsafeLocation: when another table's files stand above, below or at ours, or it is not known where."""
    ours = [normalise(path) for path in dict.fromkeys((root, table.location()))]
    for other in other_tables:
        if not other.prefixes:
            raise UnsafeLocation(
                f"where {other.table} keeps its files is not known (it cannot be loaded), so it may share {root}: "
                "repair or drop that table first"
            )
        for prefix in other.prefixes:
            for mine in ours:
                if relation := overlap(normalise(prefix), mine):
                    raise UnsafeLocation(
                        f"{prefix} of {other.table} {relation} {root}: files of that table would look like orphans of "
                        "this one. Move one of the tables to a location of its own"
                    )


def _undecided(why: str) -> Work:
    return Work(found=None, summary=f"{why}; decided by time since the last cleanup")


def _add_referenced(
    comparison: Comparison, walk: ReferenceWalk, listed: Table, fresh: Table, checkpoint: Callable[[], None]
) -> None:
    """Everything referenced now; what was referenced before the listing is marked as known then."""
    metadata = listed.metadata
    known = {
        listed.metadata_location,
        *(entry.metadata_file for entry in metadata.metadata_log),
        *(statistics.statistics_path for statistics in (*metadata.statistics, *metadata.partition_statistics)),
    }
    snapshots = {snapshot.snapshot_id for snapshot in metadata.snapshots}
    comparison.add_referenced(
        (file, file.kind is not FileKind.STATISTICS or file.path in known)
        for file in _stoppable(walk.new_files(fresh, snapshots), checkpoint)
    )
    comparison.add_referenced((file, file.path in known) for file in _stoppable(walk.new_files(fresh), checkpoint))


def _stoppable(files: Iterable[ReachableFile], checkpoint: Callable[[], None]) -> Iterator[ReachableFile]:
    for batch in in_batches(files):
        checkpoint()
        yield from batch


def _refuse_foreign_metadata(table: Table, comparison: Comparison, root: str) -> None:
    """Metadata files that we do not reference must be ours too: their table uuid says whose they are."""
    paths = comparison.unreferenced_metadata()
    metadata_folder = f"{table.location().rstrip('/')}/metadata"
    if not is_under(path_key(metadata_folder), path_key(root)) and path_key(metadata_folder) != path_key(root):
        paths = [f.path for batch in list_files(table.io, metadata_folder) for f in batch if _is_metadata_json(f.path)]
    half = _METADATA_FILES_READ // 2
    some = list(dict.fromkeys((*paths[:half], *paths[-half:])))
    ours = str(table.metadata.table_uuid)
    with ThreadPoolExecutor(_METADATA_READERS, thread_name_prefix="floe-metadata") as pool:
        for path, found in zip(some, pool.map(lambda path: _table_uuid(table, path), some), strict=True):
            if found not in (None, ours):
                raise UnsafeLocation(
                    f"{path} belongs to another table (uuid {found}, ours is {ours}): its files would look like "
                    "orphans of this one. Find out which table wrote it, and give each its own location"
                )


def _table_uuid(table: Table, path: str) -> str | None:
    """The uuid that a metadata file names, in most cases read from its first bytes."""
    try:
        with table.io.new_input(path).open() as stream:
            inflate = zlib.decompressobj(wbits=31).decompress if ".gz" in path.rsplit("/", 1)[-1] else bytes
            text = inflate(stream.read(_METADATA_HEAD))
            match = _UUID.search(text) or _UUID.search(text + inflate(stream.read()))
            return match[1].decode().lower() if match else None
    except Exception as error:  # half-written: nothing is known, and the file stays
        log.warning("%s cannot be read as table metadata: %s", path, error)
        return None


def _written(table: Table, file: ListedFile) -> str:
    """The relative path as storage spells it, which is how a pattern may be written."""
    return file.path.removeprefix(table.location().rstrip("/") + "/")


def _is_metadata_json(path: str) -> bool:
    return is_metadata_pointer(path) and "version-hint" not in path


def _sort_out(
    table: Table,
    settings: OrphanCleanup,
    comparison: Comparison,
    walk: ReferenceWalk,
    before: datetime,
    dead_outputs: Collection[str],
) -> OrphanSearch:
    dead_keys = {path_key(path): path for path in dead_outputs}
    patterns = tuple(settings.exclude_patterns)
    location = normalise(table.location()).path
    dead: list[ListedFile] = []
    young = kept = 0

    def past_retention() -> Iterator[ListedFile]:
        nonlocal young, kept
        for key, file in comparison.unreferenced(settings.prefix_mismatch_mode == "DELETE"):
            relative = relative_to(key, location if is_under(key, location) else comparison.root.path)
            if is_metadata_pointer(key):
                kept += 1
            elif key in dead_keys:
                dead.append(file)
            elif is_hidden(relative) or is_excluded(relative, patterns) or is_excluded(_written(table, file), patterns):
                kept += 1
            elif file.modified is None or file.modified >= before:
                young += 1
            else:
                yield file

    orphans = FoundFiles(past_retention())
    outside = [key for key in dead_keys if not is_under(key, comparison.root.path) and not is_metadata_pointer(key)]
    sizes = {path: file_size(table.io, path) for path in (dead_keys[key] for key in comparison.not_referenced(outside))}
    dead += [ListedFile(path, size, None) for path, size in sizes.items() if size is not None]
    return OrphanSearch(orphans, tuple(dead), comparison.listed, young, kept, walk)
