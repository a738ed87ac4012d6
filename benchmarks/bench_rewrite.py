"""Rewriting many small files of lineitem into few large ones: ours, with its commit, beside what only writes files.

Each contender runs in a process of its own; CPU seconds are those of all its threads, imports left out. Two limits
stand in the same table: the bytes copied as they are, and the rows decoded and encoded once by one thread of pyarrow.
``--scale 5`` makes about 2,000 files of 0.5 MB; without it a few, to show that it runs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import lineitem
from harness.environments import environment
from measuring import Measured, measure, report, show

TARGET_BYTES, SMALL_TARGET_BYTES = 256 * 1024**2, 2 * 1024**2
"""The second for a scale below 1."""
MEMORY_BYTES = 768 * 1024**2
PEERS = {
    "pyarrow": ("write_dataset", None),
    "duckdb": ("COPY", None),
    "polars": ("sink_parquet", ["polars>=2"]),
    "datafusion": ("COPY", ["datafusion>=50", "pyarrow"]),
}
"""With what they have to be installed, in an environment of their own where they are no dependency of ours."""
BOUND = "limit: decode and encode (pyarrow, 1 thread)"


def main() -> None:
    """Print a table for each layout of the files."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--scale", type=float, default=0.01, help="of TPC-H: 1 is 6 million rows")
    arguments.add_argument("--layouts", nargs="+", choices=lineitem.LAYOUTS, default=lineitem.LAYOUTS)
    arguments.add_argument("--peers", nargs="*", choices=PEERS, help="default: at scale 1 and more all, else ours")
    arguments.add_argument(
        "--ours", nargs=4, metavar=("LAYOUT", "SCALE", "FOLDER", "PROPERTIES"), help=argparse.SUPPRESS
    )
    given = arguments.parse_args()
    if given.ours:
        layout, scale, folder, properties = given.ours
        return ours(layout, float(scale), Path(folder), dict(pair.split("=") for pair in properties.split(",") if pair))
    installed = [name for name, (_, needs) in PEERS.items() if needs is None]
    peers = given.peers if given.peers is not None else list(PEERS) if given.scale >= 1 else installed
    for layout in given.layouts:
        compare(layout, given.scale, peers)


def compare(layout: str, scale: float, peers: list[str]) -> None:
    """One table."""
    files = lineitem.files(layout, scale)
    size = sum(path.stat().st_size for path in files)
    target = target_bytes(scale)
    print(f"{layout}: {len(files):,} files, {size / 1e6:,.1f} MB, target {target // 1024**2} MiB")
    rows: list[Measured | None] = []
    with tempfile.TemporaryDirectory(dir=lineitem.CACHE / "benchmarks") as temporary:
        out, names = Path(temporary) / "out", Path(temporary) / "files"
        names.write_text("\n".join(map(str, files)))

        def peer(name: str, label: str, python: Path | str = sys.executable) -> None:
            script = Path(__file__).with_name("rewrite_peers.py")
            rows.append(measure(label, out, [python, script, name, out, target, names]))

        def our(label: str, properties: str = "") -> None:
            rows.append(measure(label, out, [sys.executable, __file__, "--ours", layout, scale, out, properties]))

        peer("cat", "limit: bytes as they are")
        peer("bound", BOUND)
        our("Floe, with commit")
        if layout == "medium":
            our("Floe, with commit, decoded for another codec", "write.parquet.compression-codec=snappy")
        else:
            our("Floe, with commit, delta encodings allowed", "floe.parquet-encodings=delta")
        for name in peers:
            how, needs = PEERS[name]
            python = environment(f"bench-{name}", needs) if needs else sys.executable
            peer(name, f"{name} {how}", python)
    show([row for row in rows if row], bound=BOUND)


def target_bytes(scale: float) -> int:
    return TARGET_BYTES if scale >= 1 else SMALL_TARGET_BYTES


def ours(layout: str, scale: float, folder: Path, properties: dict[str, str]) -> None:
    """Rewrite an Iceberg table, from the reading of its metadata to the commit."""
    from harness.tables import context_for, request_for

    from airflow_provider_floe.engines.local import rewrite_data
    from airflow_provider_floe.policies.model import RewriteDataFiles
    from airflow_provider_floe.tables import Operation

    table = lineitem.table(layout, scale, folder / "warehouse")
    if properties:
        with table.transaction() as change:
            change.set_properties(properties)
    settings = RewriteDataFiles(target_file_size_bytes=target_bytes(scale))
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
