"""Rewriting many small files of lineitem into few large ones: ours, with its commit, beside what else does it.

Each contender runs in a process of its own, on two threads; CPU seconds are those of all its threads and processes,
imports left out. Two limits stand in the same table: the bytes copied as they are, and the rows decoded and encoded
once by one thread of pyarrow. pyarrow, DuckDB, Polars and DataFusion only write files; Floe, zamboni, the Rust
compactor and Spark commit to a table, made anew for each. Ours and the limits that it is held against run three times
in turn, the middle one counts. ``--scale full`` makes about 2,000 files of 0.5 MB, and 10 of 86 MB whose row groups are
copied; without it a few, to show that it runs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path

import lineitem
from contenders import PEERS, Place, sql_table
from measuring import Goal, Measured, at_most, measure, medians, report, show, show_goals

TARGET_BYTES, SMALL_TARGET_BYTES = 256 * 1024**2, 2 * 1024**2
"""The second for a scale below 1."""
MEMORY_BYTES = 768 * 1024**2
COPY, BOUND, OURS = "limit: bytes as they are", "limit: decode and encode (pyarrow, 1 thread)", "Floe, with commit"
VARIANTS = {
    "flat": ("Floe, with commit, delta encodings allowed", {"floe.parquet-encodings": "delta"}),
    "month": ("Floe, with commit, delta encodings allowed", {"floe.parquet-encodings": "delta"}),
    "medium": ("Floe, with commit, decoded for another codec", {"write.parquet.compression-codec": "snappy"}),
}
"""What else we measure of ourselves, by layout: table properties."""


def main() -> None:
    """Print a table and the goals for each layout of the files."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--scale", type=lineitem.scale, default="small", help="small, full, or TPC-H's number")
    arguments.add_argument("--layouts", nargs="+", choices=lineitem.LAYOUTS, default=lineitem.LAYOUTS)
    arguments.add_argument("--peers", nargs="*", choices=PEERS, help="default: at scale 1 and more all, else ours")
    arguments.add_argument("--repeats", type=int, help="of ours and its limits; default: at scale 1 and more 3, else 1")
    arguments.add_argument(
        "--ours", nargs=4, metavar=("LAYOUT", "TARGET_BYTES", "FOLDER", "URI"), help=argparse.SUPPRESS
    )
    given = arguments.parse_args()
    if given.ours:
        layout, target, folder, uri = given.ours
        return ours(layout, int(target), Path(folder), uri)
    full = given.scale >= 1
    peers = given.peers
    if peers is None:
        peers = [name for name, peer in PEERS.items() if full or peer.installed]
    results = [compare(layout, given.scale, peers, given.repeats or (3 if full else 1)) for layout in given.layouts]
    if not all(results):
        sys.exit("Floe or a limit failed")


def compare(layout: str, scale: float, peers: Sequence[str], repeats: int) -> bool:
    """One table; whether all were measured but for peers."""
    files = lineitem.files(layout, scale)
    size = sum(path.stat().st_size for path in files)
    target = TARGET_BYTES if scale >= 1 else SMALL_TARGET_BYTES
    print(f"{layout}: {len(files):,} files, {size / 1e6:,.1f} MB, target {target // 1024**2} MiB", flush=True)
    with tempfile.TemporaryDirectory(dir=lineitem.CACHE / "benchmarks") as temporary:
        names = Path(temporary) / "files"
        names.write_text("\n".join(map(str, files)))
        place = Place(Path(temporary) / "out", layout, files, names, target)
        own = [sys.executable, __file__, "--ours", layout, target, place.folder]
        variant, properties = VARIANTS[layout]
        copy, bound = partial(place.writer, COPY, "cat"), partial(place.writer, BOUND, "bound")
        plain = partial(measure, OURS, place.folder, own, partial(sql_table, place))
        other = partial(measure, variant, place.folder, own, partial(sql_table, place, properties))
        if layout == "medium":  # copies are over in no time, so the wall's noise is large
            copied, ours_copied = medians(repeats, "wall", copy, plain)
            rows = [copied, bound(), ours_copied, other()]
        else:
            rows = medians(repeats, "cpu", copy, bound, plain, other)
        rows += [PEERS[name].run(place) for name in peers]
    show(rows, bound=BOUND)
    show_goals(goals(layout, *rows))
    print(flush=True)
    return not any(row.failed for row in rows[:4])


def goals(
    layout: str, copy: Measured, bound: Measured, plain: Measured, variant: Measured, *peers: Measured
) -> list[Goal]:
    """What is asked of rewrites: of small files in both ways to encode, of larger ones of the copy alone."""
    others = [peer for peer in peers if not peer.failed]
    found = []
    if layout == "medium":
        found.append(at_most("wall time beside a copy of the bytes", plain.wall / copy.wall, 1.5, "x"))
    for one in [plain] if layout == "medium" else [plain, variant]:
        if layout != "medium":
            found.append(at_most(f"{one.name}: CPU beside decoding and encoding", one.cpu / bound.cpu, 1.1, "x"))
            found += least(one, "size", others, "MB", 1e6)
        found += least(one, "cpu", others, "CPU s", 1)
        found.append(at_most(f"{one.name}: peak memory", one.rss / 1e6, 1000, " MB"))
    return found


def least(one: Measured, figure: str, others: Sequence[Measured], unit: str, divisor: float) -> list[Goal]:
    """Less of something than every peer that was measured; nothing where none was."""
    if not others:
        return []
    best = min(others, key=attrgetter(figure))
    have, beside = (getattr(row, figure) / divisor for row in (one, best))
    text = f"{one.name}: fewer {unit} than every peer"
    return [Goal(text, f"{have:,.1f} against {beside:,.1f} of {best.name}", have < beside)]


def ours(layout: str, target: int, folder: Path, uri: str) -> None:
    """Rewrite an Iceberg table, from the reading of its metadata to the commit."""
    from harness.tables import context_for, request_for
    from pyiceberg.catalog.sql import SqlCatalog

    from airflow_provider_floe.engines.local import rewrite_data
    from airflow_provider_floe.policies.model import RewriteDataFiles
    from airflow_provider_floe.tables import Operation

    table = SqlCatalog("bench", uri=uri).load_table(f"bench.{layout}")
    settings = RewriteDataFiles(target_file_size_bytes=target)
    request = request_for(table, Operation.REWRITE_DATA_FILES, settings)
    context = context_for(table)

    def work() -> str:
        result = rewrite_data.run(request, context, MEMORY_BYTES)
        assert result.changed, result.message
        copied, groups = result.details["file_groups_copied"], result.details["file_groups"]
        return f"{copied} of {groups} file groups copied" if copied else ""

    report(folder, work)


if __name__ == "__main__":
    main()
