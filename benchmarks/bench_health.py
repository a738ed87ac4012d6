"""What reading the health of a table's files costs, beside pyiceberg's ways to read them, and the bound of inflating.

The first assessment of a process opens every manifest; one after it opens those that are new.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import count
from pathlib import Path

import metadata_tables
from bench_manifests import measured
from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table

from airflow_provider_floe.iceberg.aggregates import aggregate_manifests
from airflow_provider_floe.iceberg.avro import raw_blocks
from airflow_provider_floe.iceberg.manifests import read_ahead, snapshot_manifests

SCALES = {"small": (6, 2_000), "full": (100, 10_000)}
"""Manifests, and entries of each."""
PEER = 4_000
"""Entries, about, that pyiceberg is measured on."""


def main() -> None:
    """Print entries a second and core, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", choices=SCALES, default="small")
    manifests, entries = SCALES[parser.parse_args().scale]
    with tempfile.TemporaryDirectory() as folder:
        lake = metadata_tables.catalog(Path(folder))
        table, few = (metadata_tables.create_table(lake, name) for name in ("events", "few"))
        fill(table, manifests, entries)
        fill(few, 2, PEER // 2)
        total, found = manifests * entries, snapshot_manifests(table)
        print(f"{total:,} entries in {manifests} manifests; CPU of one core")
        bound = measured("inflating all blocks (bound)", total, lambda: inflate(table.io, found))
        plan = measured("pyiceberg, scan().plan_files()", PEER, lambda: list(few.scan().plan_files()))
        inspect = measured("pyiceberg, inspect.files()", PEER, lambda: few.inspect.files())
        ours = measured("floe, aggregates of all partitions", total, lambda: assess(table, total))
        again = measured("floe, the second time", total, lambda: assess(table, total))
        print(f"  floe has {ours / plan:.0f} times the rate of plan_files, {ours / inspect:.0f} times that of inspect,")
        print(f"  {ours / bound:.2f} times that of the bound; {again / ours:.0f} times its own the second time")


def fill(table: Table, manifests: int, entries: int) -> None:
    """Manifests of one snapshot."""
    found = [metadata_tables.write_manifest(table, number, entries, 1) for number in range(manifests)]
    metadata_tables.commit(table, [(1, found)], count(1_767_225_600_000))


def inflate(io: FileIO, manifests: list[ManifestFile]) -> None:
    """The bytes, unpacked."""
    for manifest, data in read_ahead(io, manifests):
        for _ in raw_blocks(data, manifest.manifest_path):
            continue


def assess(table: Table, files: int) -> None:
    """What the health report's figures of files are made of."""
    assert aggregate_manifests(table.io, snapshot_manifests(table)).data.files == files


if __name__ == "__main__":
    main()
