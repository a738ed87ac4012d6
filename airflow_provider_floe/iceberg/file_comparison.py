"""Listed and referenced files held against each other, in bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from airflow_provider_floe.errors import UnsafeLocation, UnsafeOperation
from airflow_provider_floe.iceberg.listing import ListedFile, in_batches
from airflow_provider_floe.iceberg.paths import PathRules, StoragePath, normalise, path_key, same_store
from airflow_provider_floe.iceberg.reachability import ReachableFile

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ROWS = 50_000
_SHOWN = 3
_LEAST_MEMORY = 64 * 1024**2


class Comparison:
    """Listed and referenced files side by side, in a DuckDB database that spills to disk beyond its memory limit.

    Files are joined by path without scheme and authority.
    """

    def __init__(self, root: StoragePath, rules: PathRules, memory_limit_bytes: int) -> None:
        self.root = root
        self.listed = 0
        self._rules = rules
        self._memory = max(memory_limit_bytes, _LEAST_MEMORY)

    def __enter__(self) -> Comparison:
        self._folder = tempfile.TemporaryDirectory(prefix="floe-orphans-")
        folder = Path(self._folder.name)
        self._db = duckdb.connect(
            str(folder / "comparison.duckdb"),
            config={"memory_limit": f"{self._memory}B", "temp_directory": str(folder / "spill"), "threads": 2},
        )
        self._db.execute("CREATE TABLE listed (path VARCHAR, key VARCHAR, size BIGINT, modified BIGINT)")
        self._db.execute("CREATE TABLE referenced (key VARCHAR, same BOOLEAN, known BOOLEAN)")
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        self._folder.cleanup()

    def add_listed(self, batch: Sequence[ListedFile]) -> None:
        """Add files that storage lists."""
        paths, sizes, times = zip(*batch, strict=True)
        self.listed += len(batch)
        self._insert(
            "listed",
            {
                "path": pa.array(paths, pa.string()),
                "key": pa.array([path_key(path) for path in paths], pa.string()),
                "size": pa.array(sizes, pa.int64()),
                "modified": pa.array(times, pa.timestamp("us", "UTC")).cast(pa.int64()),
            },
        )

    def add_referenced(self, files: Iterable[tuple[ReachableFile, bool]]) -> None:
        """Add referenced files, each with whether it was referenced before the listing began."""
        for batch in in_batches(files, _ROWS):
            places = [normalise(file.path, self._rules) for file, _ in batch]
            self._insert(
                "referenced",
                {
                    "key": pa.array([place.path for place in places], pa.string()),
                    "same": pa.array([same_store(place, self.root) for place in places], pa.bool_()),
                    "known": pa.array([known for _, known in batch], pa.bool_()),
                },
            )

    def _insert(self, table: str, columns: dict[str, pa.Array]) -> None:
        self._db.register("batch", pa.table(columns))
        self._db.execute(f"INSERT INTO {table} SELECT * FROM batch")
        self._db.unregister("batch")

    def refuse_partial_listing(self, root: str) -> None:
        """:raises UnsafeOperation: when a file referenced since before the listing is missing from it."""
        below = self.root.path.rstrip("/") + "/"
        missing = self._rows(
            "SELECT DISTINCT r.key FROM referenced r ANTI JOIN listed l ON r.key = l.key "
            "WHERE r.known AND r.same AND starts_with(r.key, ?) ORDER BY ALL",
            [below],
        )
        if missing:
            shown = ", ".join(key for (key,) in missing[:_SHOWN])
            raise UnsafeOperation(
                f"the listing of {root} is partial: {len(missing)} files that the table references are missing from it "
                f"({shown}{' ...' if len(missing) > _SHOWN else ''}). Either storage did not list everything, or the "
                "table has lost files; nothing is deleted"
            )

    def refuse_mismatches(self) -> None:
        """:raises UnsafeLocation: when a listed and a referenced file differ in scheme or authority only."""
        found = self._rows(
            "SELECT l.path FROM listed l JOIN (SELECT key FROM referenced GROUP BY key HAVING NOT bool_or(same)) r "
            "ON l.key = r.key ORDER BY ALL",
        )
        if found:
            shown = ", ".join(path for (path,) in found[:_SHOWN])
            raise UnsafeLocation(
                f"{len(found)} files are referenced with another scheme or authority than they are listed with "
                f"({shown}{' ...' if len(found) > _SHOWN else ''}): say which are equal in equalSchemes or "
                "equalAuthorities, or set prefixMismatchMode to IGNORE to keep such files"
            )

    def unreferenced_metadata(self) -> list[str]:
        """Metadata files listed and not referenced, newest first."""
        rows = self._rows(
            "SELECT l.path FROM listed l ANTI JOIN referenced r ON l.key = r.key "
            "WHERE l.path LIKE '%.metadata.json' OR l.path LIKE '%.metadata.json.gz' ORDER BY l.modified DESC",
        )
        return [path for (path,) in rows]

    def unreferenced(self, mismatches: bool) -> Iterator[tuple[str, ListedFile]]:
        """Key and file of everything listed and not referenced.

        :param mismatches: a file referenced only with another scheme or authority counts as not referenced.
        """
        condition = "WHERE same" if mismatches else ""
        self._db.execute(
            "SELECT l.key, l.path, l.size, l.modified FROM listed l "
            f"ANTI JOIN (SELECT key FROM referenced {condition}) r ON l.key = r.key ORDER BY l.path"
        )
        while rows := self._db.fetchmany(10_000):
            for key, path, size, micros in rows:
                yield key, ListedFile(path, size, None if micros is None else _EPOCH + timedelta(microseconds=micros))

    def not_referenced(self, keys: Collection[str]) -> list[str]:
        """Those of the keys that nothing references, whatever the scheme and authority."""
        query = "SELECT k FROM (SELECT unnest(?::VARCHAR[]) AS k) ANTI JOIN referenced r ON k = r.key ORDER BY k"
        return [key for (key,) in self._rows(query, [list(keys)])]

    def _rows(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self._db.execute(query, list(parameters)).fetchall()
        return found
