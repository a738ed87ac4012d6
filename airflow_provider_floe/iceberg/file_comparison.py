"""Listed and referenced files held against each other, in bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_floe.errors import UnsafeLocation, UnsafeOperation
from airflow_provider_floe.iceberg.hash_columns import HashColumn, Hashes, differences
from airflow_provider_floe.iceberg.listing import ListedFile, in_batches
from airflow_provider_floe.iceberg.paths import (
    PathRules,
    StoragePath,
    normalise,
    path_key,
    path_keys,
    same_store,
    store_of,
)
from airflow_provider_floe.iceberg.reachability import ReachableFile
from airflow_provider_floe.iceberg.spilled_rows import SpilledRows

LISTING = pa.schema([("path", pa.string()), ("size", pa.int64()), ("modified", pa.timestamp("us", "UTC"))])
"""Files as storage lists them, in columns; see :class:`~airflow_provider_floe.iceberg.listing.ListedFile`."""

_PATHS = pa.schema([("path", pa.string())])
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ROWS = 50_000
_SHOWN = 3
_LEAST_MEMORY = 64 * 1024**2
_AT_ONCE = 2_500
"""Paths whose bytes fit a processor's cache."""
_SLASH, _DOT = b"/."


class Comparison:
    """Listed and referenced files side by side, in bounded memory.

    Files are told from one another by 64 bits of a hash of their path without scheme and authority; hashes and paths
    wait on disk, and hashes are held against each other range by range where they are too many. Two paths of one hash
    can at worst keep an orphan, or hide one of several files that are missing: a file whose hash nothing else has is
    told for sure.
    """

    def __init__(self, root: StoragePath, rules: PathRules, memory_limit_bytes: int) -> None:
        self.root = root
        self.listed = 0
        self._rules = rules
        self._memory = max(memory_limit_bytes, _LEAST_MEMORY)
        self._store: str | None = None

    def __enter__(self) -> Comparison:
        self._folder = tempfile.TemporaryDirectory(prefix="floe-orphans-")
        folder = Path(self._folder.name)
        self._db = duckdb.connect(config={"threads": 1})  # for its hash function alone
        self._listed = SpilledRows(folder / "listed.arrow", LISTING)
        self._referenced = SpilledRows(folder / "referenced.arrow", _PATHS)
        self._listed_hashes, self._referenced_hashes = HashColumn(), HashColumn()
        self._found: dict[bool, tuple[Hashes, Hashes]] = {}
        self._same, self._elsewhere, self._known = HashColumn(), HashColumn(), HashColumn()
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        self._listed.close()
        self._referenced.close()
        self._folder.cleanup()

    def add_listed(self, batch: Sequence[ListedFile]) -> None:
        """Add files that storage lists."""
        if batch:
            paths, sizes, times = zip(*batch, strict=True)
            columns = zip((paths, sizes, times), LISTING, strict=True)
            self.add_listing(
                pa.record_batch([pa.array(values, field.type) for values, field in columns], schema=LISTING)
            )

    def add_listing(self, batch: pa.RecordBatch) -> None:
        """Add files that storage lists, in columns; the larger the batches, the faster.

        :param batch: of schema :data:`LISTING`.
        """
        self._found.clear()
        self.listed += len(batch)
        self._listed.add(batch)
        self._listed_hashes.add(self._hashes(self._spelled(batch["path"])))

    def add_referenced(self, files: Iterable[tuple[ReachableFile, bool]]) -> None:
        """Add referenced files, each with whether it was referenced before the listing began."""
        for batch in in_batches(files, _ROWS):
            paths = pa.array([file.path for file, _ in batch], pa.string())
            self._add_referenced(paths, pa.array([known for _, known in batch], pa.bool_()))

    def add_references(self, paths: pa.StringArray, *, known: bool) -> None:
        """Add paths that are referenced, as a column.

        :param known: they were referenced before the listing began.
        """
        if len(paths):
            self._add_referenced(paths, pa.repeat(pa.scalar(known), len(paths)))

    def _add_referenced(self, paths: pa.StringArray, known: pa.BooleanArray) -> None:
        self._found.clear()
        self._referenced.add(pa.record_batch([paths], schema=_PATHS))
        spelled = self._spelled(paths)
        if spelled is paths:
            one = same_store(normalise(paths[0].as_py(), self._rules), self.root)
            same = pa.repeat(pa.scalar(one), len(paths))
        else:
            same = pa.array([same_store(normalise(path, self._rules), self.root) for path in paths.to_pylist()])
        hashes = self._hashes(spelled)
        here = same.to_numpy(zero_copy_only=False)
        self._referenced_hashes.add(hashes)
        self._same.add(hashes[here])
        self._elsewhere.add(hashes[~here])
        self._known.add(hashes[here & known.to_numpy(zero_copy_only=False)])

    def _hashes(self, paths: pa.StringArray) -> Hashes:
        self._db.register("batch", pa.table({"path": paths}))
        found = self._db.execute("SELECT hash(path) AS h FROM batch").fetchnumpy()["h"]
        self._db.unregister("batch")
        return found

    def _spelled(self, paths: pa.StringArray) -> pa.StringArray:
        """The paths in the one spelling that is hashed: scheme and authority of the first of all, normalised path.

        The array itself where all are in it, which a few passes over its bytes tell.
        """
        if self._store is None:
            self._store = store_of(paths[0].as_py())
        store = self._store
        if _all_plain(paths, store):
            return paths
        return pa.array([store + key for key in path_keys(paths.to_pylist())], pa.string())

    def refuse_partial_listing(self, root: str) -> None:
        """:raises UnsafeOperation: when a file referenced since before the listing is missing from it."""
        below = self.root.path.rstrip("/") + "/"
        unlisted = self._differences(mismatches=False)[1]
        gone = self._referenced_hashes.numbers(self._known.those(unlisted))
        keys = {
            key
            for batch in self._referenced.rows(gone)
            for key in map(path_key, batch["path"].to_pylist())
            if key.startswith(below)
        }
        if keys:
            missing = sorted(keys)
            raise UnsafeOperation(
                f"the listing of {root} is partial: {len(missing)} files that the table references are missing from it "
                f"({_some(missing)}). Either storage did not list everything, or the table has lost files; nothing is "
                "deleted"
            )

    def refuse_mismatches(self) -> None:
        """:raises UnsafeLocation: when a listed and a referenced file differ in scheme or authority only."""
        if not len(self._elsewhere):
            return
        only_elsewhere, _ = differences([self._elsewhere], [self._same], self._memory)
        found = self._listed_hashes.numbers(only_elsewhere)
        paths = sorted(path for batch in self._listed.rows(found) for path in batch["path"].to_pylist())
        if paths:
            raise UnsafeLocation(
                f"{len(paths)} files are referenced with another scheme or authority than they are listed with "
                f"({_some(paths)}): say which are equal in equalSchemes or equalAuthorities, or set prefixMismatchMode "
                "to IGNORE to keep such files"
            )

    def unreferenced_metadata(self) -> list[str]:
        """Metadata files listed and not referenced, newest first."""
        found = []
        for batch in self._unreferenced(mismatches=False):
            for path, modified in zip(batch["path"].to_pylist(), batch["modified"].to_pylist(), strict=True):
                if path.endswith((".metadata.json", ".metadata.json.gz")):
                    found.append((modified or _EPOCH, path))
        return [path for _, path in sorted(found, reverse=True)]

    def unreferenced(self, mismatches: bool) -> Iterator[tuple[str, ListedFile]]:
        """Key and file of everything listed and not referenced, in the order of the listing.

        :param mismatches: a file referenced only with another scheme or authority counts as not referenced.
        """
        for batch in self._unreferenced(mismatches):
            for path, size, modified in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield path_key(path), ListedFile(path, size, modified)

    def not_referenced(self, keys: Collection[str]) -> list[str]:
        """Those of the keys that nothing references, whatever the scheme and authority."""
        if not keys:
            return []
        ordered = sorted(keys)
        column = HashColumn()
        column.add(self._hashes(pa.array([(self._store or "") + key for key in ordered], pa.string())))
        absent, _ = differences([column], [self._same, self._elsewhere], self._memory)
        return [ordered[place] for place in column.numbers(absent)]

    def _unreferenced(self, mismatches: bool) -> Iterator[pa.RecordBatch]:
        return self._listed.rows(self._listed_hashes.numbers(self._differences(mismatches)[0]))

    def _differences(self, mismatches: bool) -> tuple[Hashes, Hashes]:
        """Hashes listed and not referenced, and referenced and not listed; all that is listed has been added."""
        if mismatches not in self._found:
            references = [self._same] if mismatches else [self._same, self._elsewhere]
            self._found[mismatches] = differences([self._listed_hashes], references, self._memory)
        return self._found[mismatches]


def _some(paths: Sequence[str]) -> str:
    return ", ".join(paths[:_SHOWN]) + (" ..." if len(paths) > _SHOWN else "")


def _all_plain(paths: pa.StringArray, store: str) -> bool:
    """Whether every path has this scheme and authority, and is normalised as it is: nothing encoded, no empty parts."""
    start = f"{store}/"
    if not pc.all(pc.starts_with(paths, start)).as_py():
        return False
    offsets = np.frombuffer(paths.buffers()[1], np.int32)[paths.offset : paths.offset + len(paths) + 1]
    expected = sum(start[place : place + 2] in ("//", "/.") for place in range(len(start)))
    for first in range(0, len(paths), _AT_ONCE):
        ends = offsets[first : first + _AT_ONCE + 1]
        text = np.frombuffer(paths.buffers()[2], np.uint8, ends[-1] - ends[0], ends[0])
        slash = text == _SLASH
        # a slash before another or before a dot, which are neighbours in ASCII, is found in one pass
        odd = np.count_nonzero(slash[:-1] & (text[1:] - np.uint8(_DOT) < 2))
        if odd != expected * (len(ends) - 1) or slash[ends[1:] - ends[0] - 1].any() or b"%" in text.tobytes():
            return False
    return True
