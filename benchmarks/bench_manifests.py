"""What rewriting manifests costs, beside pyiceberg reading and writing the same entries, and the bound of reading.

The manifests are as Java writers leave them: added files of 16 columns with bounds, their partitions scattered.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import metadata_tables
from measured_context import MeasuredContext, request
from measuring import at_least, show_goals
from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestFile, write_manifest
from pyiceberg.table import Table

from airflow_provider_floe.engines.local import rewrite_manifests
from airflow_provider_floe.iceberg.avro import Projection, read_rows
from airflow_provider_floe.iceberg.manifests import live_files, read_ahead, snapshot_manifests
from airflow_provider_floe.policies.model import RewriteManifests
from airflow_provider_floe.tables import Operation

SCALES = {"small": (6, 2_000), "full": (100, 10_000)}
"""Manifests, and entries of each."""
WANTED = 80_000
"""Entries a second and core."""
PEER = 10_000
"""Entries that pyiceberg is measured on."""
_STATUS = Projection((0,), frozenset((0,)))


def main() -> None:
    """Print entries a second and core, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", choices=SCALES, default="small")
    manifests, entries = SCALES[parser.parse_args().scale]
    with tempfile.TemporaryDirectory() as folder:
        table = metadata_tables.create_table(metadata_tables.catalog(Path(folder)), "events")
        found = [metadata_tables.write_manifest(table, number, entries, 1) for number in range(manifests)]
        metadata_tables.commit(table, [(1, found)], count(1_767_225_600_000))
        total, size = manifests * entries, sum(one.manifest_length for one in found)
        print(f"{total:,} entries in {manifests} manifests, {size / 1e6:.0f} MB; CPU of one core")
        found = snapshot_manifests(table)
        bound = measured("stepping over all entries (bound)", total, lambda: read(table.io, found))
        peer = measured("pyiceberg, read and write", min(total, PEER), lambda: pyiceberg_rewrites(table, found))
        before = paths(table)
        ours = measured("floe, read, cluster, write, verify, commit", total, lambda: run(table))
        table.refresh()
        assert paths(table) == before
        after = snapshot_manifests(table)
        print(f"  {manifests} manifests became {len(after)}, {sum(one.manifest_length for one in after) / 1e6:.0f} MB")
        print(f"  floe has {ours / peer:.1f} times the rate of pyiceberg, {ours / bound:.2f} times that of the bound")
        show_goals([at_least("floe", ours, WANTED, " entries/s/core")])
        print(f"  peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def run(table: Table) -> None:
    """Our rewrite."""
    wanted = request(table, Operation.REWRITE_MANIFESTS, RewriteManifests())
    result = rewrite_manifests.run(wanted, MeasuredContext(table, datetime.now(UTC)), 1024**3)
    assert result.changed


def read(io: FileIO, manifests: list[ManifestFile]) -> None:
    """The bytes, inflated and walked through, nothing made of them."""
    for manifest, data in read_ahead(io, manifests):
        read_rows(data, _STATUS, manifest.manifest_path)


def pyiceberg_rewrites(table: Table, manifests: list[ManifestFile]) -> None:
    """The first entries, in the order in which they are, into one manifest."""
    output = table.io.new_output(f"{table.location()}/peer.avro")
    left = PEER
    with write_manifest(2, table.spec(), table.schema(), output, 7, "gzip") as writer:
        for manifest in manifests:
            for entry in manifest.fetch_manifest_entry(table.io):
                if left > 0:
                    writer.existing(entry)
                    left -= 1
            if left <= 0:
                return


def paths(table: Table) -> int:
    """A sum over the paths and partitions of the live files."""
    return sum(hash((file.path, file.partition)) for file in live_files(table.io, snapshot_manifests(table)))


def measured(name: str, entries: int, work: Callable[[], None]) -> float:
    """Entries a second and core of some work, which are printed."""
    started, cpu = time.perf_counter(), time.process_time()
    work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - started
    print(f"  {name:<44}{entries / cpu:>10,.0f} entries/s/core{entries / wall:>10,.0f} entries/s")
    return entries / cpu


if __name__ == "__main__":
    main()
