"""What expiring snapshots costs on a table with many, beside reading what each of them names.

A table of small appends is made of metadata alone: each snapshot adds a manifest, and merges the oldest into one from
time to time, so that manifests are shared between snapshots as they are in real tables. All snapshots but the last 100
expire. The peers: pyiceberg's expire_snapshots, which changes metadata and deletes no file; and a reader that opens
every manifest of every snapshot, as tools do that do not tell shared manifests from others (measured on some
snapshots, and told for all of them).
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import metadata_tables
from measured_context import MeasuredContext, request
from pyiceberg.manifest import ManifestFile, read_manifest_list
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from airflow_provider_floe.engines.local import expire
from airflow_provider_floe.iceberg.reachability import ReferenceWalk, reachable
from airflow_provider_floe.policies.model import ExpireSnapshots
from airflow_provider_floe.tables import Operation

SCALES = {"small": 300, "full": 10_000}
KEPT = 100
FILES = 20
"""Added by each snapshot."""
MERGED = 20
"""After so many appends their manifests become one."""
NAIVE, PEER = 30, 10
"""Snapshots that the naive reader and pyiceberg are measured on; both are told for all."""
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def main() -> None:
    """Print seconds, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", choices=SCALES, default="small")
    snapshots = SCALES[parser.parse_args().scale]
    with tempfile.TemporaryDirectory() as folder:
        table = make(Path(folder), snapshots)
        peer = metadata_tables.register(table, "peer")
        metadata = len(Path(table.metadata_location.removeprefix("file://")).read_bytes())
        print(f"{snapshots:,} snapshots ({metadata / 1e6:.1f} MB of metadata), all but {KEPT} expire")
        read = measured("reading lists and manifests once (limit)", lambda: read_once(table))
        some = table.metadata.snapshots[:: max(1, snapshots // NAIVE)]
        naive = measured(f"naive reader, {len(some)} snapshots", lambda: naively(table, some))
        theirs = measured(f"pyiceberg, {PEER} snapshots, no deletion", lambda: pyiceberg_expires(peer))
        theirs *= (snapshots - KEPT) / PEER
        context = MeasuredContext(table, BEGIN + timedelta(days=400))
        settings = ExpireSnapshots(retain_last=KEPT, max_snapshot_age=timedelta(hours=1))
        ours = measured("floe, with deletion", lambda: run(table, context, settings))
        table.refresh()
        check(table)
        estimate = naive / len(some) * snapshots
        print(f"  {context.deleted:,} files deleted; the naive reader would take {estimate:.1f} s for all snapshots")
        print(f"  floe takes {ours / read:.2f} times the limit, {ours / theirs:.2f} times pyiceberg without deletion,")
        print(f"  {ours / estimate:.2f} times the naive reader; peak memory {peak_mib():.0f} MiB")


def make(folder: Path, snapshots: int) -> Table:
    """The table."""
    table = metadata_tables.create_table(metadata_tables.catalog(folder), "events")
    times = count(int(BEGIN.timestamp() * 1000), 60_000)
    metadata_tables.commit(table, growing(table, snapshots), times)
    return table


def growing(table: Table, snapshots: int) -> Iterator[tuple[int, list[ManifestFile]]]:
    """Snapshots one after the other, with the manifests of each."""
    merged: list[ManifestFile] = []
    fresh: list[ManifestFile] = []
    for number in range(1, snapshots + 1):
        fresh = [metadata_tables.write_manifest(table, number, FILES, number), *fresh]
        if len(fresh) > MERGED:
            merged = [metadata_tables.write_manifest(table, number, FILES * MERGED, number, first=FILES), *merged][:10]
            fresh = fresh[:1]
        yield number, metadata_tables.numbered([*fresh, *merged], number)
        fresh, merged = metadata_tables.numbered(fresh, number), metadata_tables.numbered(merged, number)


def run(table: Table, context: MeasuredContext, settings: ExpireSnapshots) -> None:
    """Our expiry."""
    result = expire.run(request(table, Operation.EXPIRE_SNAPSHOTS, settings), context, 1024**3)
    assert result.snapshots_expired == len(table.metadata.snapshots) - KEPT


def pyiceberg_expires(table: Table) -> None:
    """pyiceberg's, of the first snapshots."""
    expiry = table.maintenance.expire_snapshots()
    expiry.by_ids([snapshot.snapshot_id for snapshot in table.metadata.snapshots[:PEER]]).commit()


def naively(table: Table, snapshots: list[Snapshot]) -> None:
    """Every manifest of each snapshot, with pyiceberg."""
    for snapshot in snapshots:
        for manifest in read_manifest_list(table.io.new_input(snapshot.manifest_list)):
            manifest.fetch_manifest_entry(table.io)


def read_once(table: Table) -> None:
    """What cannot be saved: the bytes of each manifest list and manifest, decoded as expiry decodes them."""
    for _ in ReferenceWalk().new_batches(table):
        continue


def check(table: Table) -> None:
    """What is left in the metadata folder is what is referenced, and metadata files."""
    assert len(table.metadata.snapshots) == KEPT
    folder = Path(table.location().removeprefix("file://")) / "metadata"
    needed = {file.path.rpartition("/")[2] for file in reachable(table)}
    for path in folder.glob("*.avro"):
        assert path.name in needed, f"{path.name} was left behind"


def measured(name: str, work: Callable[[], None]) -> float:
    """CPU seconds of some work, which are printed with the wall's."""
    started, cpu = time.perf_counter(), time.process_time()
    work()
    cpu = time.process_time() - cpu
    print(f"  {name:<40}{time.perf_counter() - started:>8.2f} s wall{cpu:>8.2f} s CPU")
    return cpu


def peak_mib() -> float:
    """Peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
