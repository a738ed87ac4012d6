"""Rewriting a small table, 5 files of 300 KB together: what work that is hardly any costs, first and again.

Ours is the engine's whole operation on a table of a SQL catalog. The limit is pyarrow, which reads the files and writes
one; the peer is pyiceberg, which scans a table and overwrites it. Each runs in a process of its own: the imports, the
first table, and the middle one of those after it are told apart.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import lineitem
import pyarrow.parquet as pq
from measuring import at_most, show_goals

FILES, ROWS_EACH = 5, 1_750
SCALES = {"small": 3, "full": 20}
"""Tables after the first."""
STAGES = ("imports", "first", "again")
CONTENDERS = {
    "pyarrow": "limit: pyarrow reads and writes",
    "pyiceberg": "pyiceberg, scan and overwrite",
    "floe": "Floe, the engine's operation",
}


def main() -> None:
    """Print one table and the goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", choices=SCALES, default="small", help="how many tables")
    repeats = SCALES[parser.parse_args().scale]
    columns = "".join(f"{f'{stage}: wall, CPU s':>22}" for stage in STAGES)
    with tempfile.TemporaryDirectory() as temporary:
        paths = make_files(Path(temporary) / "files")
        size = sum(path.stat().st_size for path in paths)
        print(f"{len(paths)} files, {size / 1000:,.0f} KB; one table, then {repeats} more of the kind")
        print(f"  {'':<36}{columns}{'peak MB':>9}")
        costs = {}
        for contender, label in CONTENDERS.items():
            folder = Path(temporary) / contender
            names = make_tables(folder, paths, 1 + repeats)
            found = costs[contender] = measure(contender, folder, names, paths)
            shown = "".join(f"{f'{wall:.3f}':>13}{cpu:>9.3f}" for wall, cpu in (found[stage] for stage in STAGES))
            print(f"  {label:<36}{shown}{found['peak'] / 1e6:>9,.0f}")
    ours, limit, peer = (costs[name] for name in ("floe", "pyarrow", "pyiceberg"))
    for stage in STAGES[1:]:
        print(
            f"  {stage}: Floe takes {ours[stage][1] / limit[stage][1]:.1f} times the CPU of the limit, "
            f"{ours[stage][1] / peer[stage][1]:.1f} times that of pyiceberg"
        )
    show_goals(
        [
            at_most("the first table of a process, wall", ours["first"][0], 1, " s"),
            at_most("the first table of a process, CPU", ours["first"][1], 1, " s"),
            at_most("a table after it, wall", ours["again"][0], 1, " s"),
            at_most("a table after it, CPU", ours["again"][1], 1, " s"),
        ]
    )


def make_files(folder: Path) -> list[Path]:
    """Parts of lineitem's small files."""
    folder.mkdir()
    paths = [folder / f"{number}.parquet" for number in range(FILES)]
    for path, source in zip(paths, lineitem.files("flat", lineitem.SCALES["small"]), strict=False):
        pq.write_table(pq.read_table(source).slice(0, ROWS_EACH), path, compression="zstd")
    return paths


def make_tables(folder: Path, paths: list[Path], count: int) -> list[str]:
    """Tables of one catalog that have these files."""
    catalog = lineitem.catalog(folder)
    tables = [lineitem.create_table(catalog, f"small_{number}", paths) for number in range(count)]
    return [".".join(table.name()) for table in tables]


def measure(contender: str, folder: Path, tables: list[str], paths: list[Path]) -> dict[str, Any]:
    """Wall and CPU seconds of each stage, and the most memory, of a process of its own."""
    script = Path(__file__).with_name("small_contenders.py")
    command = [sys.executable, script, contender, folder, ",".join(tables), ",".join(map(str, paths))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
