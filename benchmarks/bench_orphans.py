"""What telling orphan files costs: listed paths against referenced ones, beside a Python set and plain DuckDB.

Each way runs in a process of its own on the same generated paths, of which one in ten thousand is an orphan. What
making the paths costs is told apart, as every way pays it.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from measuring import at_most, show_goals

SCALES = {"small": 200_000, "full": 10_000_000}
WANTED_SECONDS, WANTED_BYTES = 6, 10**9
"""Wall time and peak memory for 10 million paths."""
ORPHANS = 10_000
"""One path in so many is an orphan."""
_BATCH = 100_000
_ROOT = "s3://bucket/warehouse/db/events"


def main() -> None:
    """Print seconds and memory of each way, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", choices=SCALES, default="small")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    count = SCALES[arguments.scale]
    if arguments.way:
        WAYS[arguments.way](0)  # imports
        started, cpu = time.perf_counter(), _cpu()
        found = WAYS[arguments.way](count)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(time.perf_counter() - started, _cpu() - cpu, memory, found)
        return
    print(f"{count:,} listed against {count:,} referenced paths  {'wall s':>8}{'CPU s':>8}{'peak MiB':>10}")
    figures, memories = {}, {}
    for way in WAYS:
        command = [sys.executable, __file__, "--scale", arguments.scale, "--way", way]
        wall, cpu, memory, found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        figures[way], memories[way] = float(wall), float(memory) * 1024**2
        print(f"  {way:<48}{float(wall):>8.2f}{float(cpu):>8.2f}{float(memory):>10.0f}")
        assert int(found) in (0, -(-count // ORPHANS)), f"{way} found {found} orphans"
    ours, paths = figures["floe"], figures["paths only"]
    for way in ("python set", "duckdb strings"):
        print(f"  {way} takes {figures[way] / ours:.2f} times as long as floe")
    print(f"  floe takes {ours / paths:.2f} times as long as making the paths")
    wanted = at_most("floe: wall time", ours, WANTED_SECONDS, " s")
    show_goals([wanted, at_most("floe: peak memory", memories["floe"] / 1e6, WANTED_BYTES / 1e6, " MB")])


def paths_only(count: int) -> int:
    """What all ways pay."""
    for _ in chain(_listed(count), _referenced(count)):
        continue
    return 0


def floe(count: int) -> int:
    """As remove_orphan_files does, with the same checks."""
    from airflow_provider_floe.iceberg.file_comparison import LISTING, Comparison
    from airflow_provider_floe.iceberg.paths import DEFAULT_RULES, normalise

    with Comparison(normalise(_ROOT), DEFAULT_RULES, 512 * 1024**2) as comparison:
        moment = pa.scalar(datetime(2026, 1, 1, tzinfo=UTC), pa.timestamp("us", "UTC"))
        for paths in _listed(count):
            sizes = pa.repeat(pa.scalar(1024), len(paths))
            comparison.add_listing(pa.record_batch([paths, sizes, pa.repeat(moment, len(paths))], schema=LISTING))
        for paths in _referenced(count):
            comparison.add_references(paths, known=True)
        comparison.refuse_partial_listing(_ROOT)
        comparison.refuse_mismatches()
        return sum(1 for _ in comparison.unreferenced(mismatches=False))


def python_set(count: int) -> int:
    """A set of the referenced paths."""
    referenced: set[str] = set()
    for paths in _referenced(count):
        referenced.update(paths.to_pylist())
    return sum(path not in referenced for paths in _listed(count) for path in paths.to_pylist())


def duckdb_strings(count: int) -> int:
    """DuckDB's anti join of the paths as they are, under a memory limit."""
    import duckdb

    schema = pa.schema([("path", pa.string())])

    def reader(batches: Iterator[pa.Array]) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(schema, (pa.record_batch([one], schema=schema) for one in batches))

    with tempfile.TemporaryDirectory() as folder:
        database = duckdb.connect(config={"memory_limit": "1GB", "threads": 2, "temp_directory": folder})
        database.register("listed", reader(_listed(count)))
        database.register("referenced", reader(_referenced(count)))
        query = "SELECT count(*) FROM listed ANTI JOIN referenced USING (path)"
        return int(database.execute(query).fetchall()[0][0])


WAYS: dict[str, Callable[[int], int]] = {
    "paths only": paths_only,
    "floe": floe,
    "python set": python_set,
    "duckdb strings": duckdb_strings,
}


def _listed(count: int) -> Iterator[pa.StringArray]:
    for start in range(0, count, _BATCH):
        yield _paths(np.arange(start, min(start + _BATCH, count)))


def _referenced(count: int) -> Iterator[pa.StringArray]:
    """The manifests of the newest appends come first."""
    for start in reversed(range(0, count, _BATCH)):
        numbers = np.arange(start, min(start + _BATCH, count))
        yield _paths(numbers[numbers % ORPHANS != 0])


def _paths(numbers: np.ndarray[Any, Any]) -> pa.StringArray:
    text = pa.array(numbers).cast(pa.string())
    tail = "-0b1c7c52-5a3d-4a6e-9a47-3d2f6f2a7c11-00001.parquet"
    return pc.binary_join_element_wise(f"{_ROOT}/data/month=2026-01/", text, tail, "")


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
