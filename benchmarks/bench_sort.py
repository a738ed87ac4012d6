"""Putting rows into order: sort and z-order of small files of lineitem by two columns, beside DuckDB by itself.

A quarter of the flat files is sorted by date and part: at ``--scale 5`` 7.5 million rows. The limit in the same table
is decoding and encoding these rows once, as they come, by one thread of pyarrow. Clustering is told as the share of a
column's values that 122,880 rows in a row span, on average: little means that readers skip much. A sort clusters the
first column only. DuckDB's z-order ranks both columns by window functions, as others do it in SQL.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import lineitem
import numpy as np
from measuring import Measured, at_most, measure, report, show, show_goals

COLUMNS = ("l_shipdate", "l_partkey")
MEMORY_BYTES = 768 * 1024**2
TARGET_BYTES = 256 * 1024**2
WINDOW = 122_880
BITS = 12
OURS = "Floe, with commit, 768 MiB"
WANTED_CPU, WANTED_SCALE = 12, 5
"""Seconds for 7.5 million rows: TPC-H's scale 5."""
BOUND = "limit: decode and encode (pyarrow, 1 thread)"

SETTINGS = {
    "sort": {"strategy": "SORT", "sort_order": list(COLUMNS)},
    "z-order": {"strategy": "ZORDER", "z_order_columns": list(COLUMNS)},
}


def main() -> None:
    """Print one table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--scale", type=float, default=0.01, help="of TPC-H: 1 is 6 million rows")
    arguments.add_argument("--run", nargs=3, metavar=("CONTENDER", "HOW", "FOLDER"), help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.run:
        contender, how, folder = given.run
        return (ours if contender == "ours" else duckdb_alone)(how, given.scale, Path(folder))
    files = chosen(given.scale)
    print(
        f"{len(files):,} files, {sum(path.stat().st_size for path in files) / 1e6:,.1f} MB, by {' and '.join(COLUMNS)}"
    )
    rows: list[Measured | None] = []
    with tempfile.TemporaryDirectory(dir=lineitem.CACHE / "benchmarks") as temporary:
        out = Path(temporary) / "out"
        names = Path(temporary) / "files"
        names.write_text("\n".join(map(str, files)))
        peers = Path(__file__).with_name("rewrite_peers.py")
        rows.append(measure(BOUND, out, [sys.executable, peers, "bound", out, TARGET_BYTES, names]))
        for how in SETTINGS:
            pair = [
                measure(
                    f"{label}: {how}",
                    out,
                    [sys.executable, __file__, "--scale", given.scale, "--run", contender, how, out],
                )
                for contender, label in (("duckdb", "DuckDB COPY, 768 MB"), ("ours", OURS))
            ]
            rows += map(beside, pair, [pair[0]] * 2)
    found = [row for row in rows if row]
    show(found, bound=BOUND)
    if given.scale == WANTED_SCALE:
        show_goals([at_most(f"{one.name}: CPU", one.cpu, WANTED_CPU, " s") for one in found if OURS in one.name])


def beside(one: Measured | None, peer: Measured | None) -> Measured | None:
    """With the ratio of CPU to DuckDB's in its note."""
    if one is None or peer is None:
        return one
    return replace(one, note=f"{one.note}; {one.cpu / peer.cpu:.2f} x DuckDB")


def chosen(scale: float) -> list[Path]:
    """Every fourth of the small files."""
    return lineitem.files("flat", scale)[::4]


def ours(how: str, scale: float, folder: Path) -> None:
    from harness.tables import context_for, request_for

    from airflow_provider_floe.engines.local import rewrite_data
    from airflow_provider_floe.policies.model import RewriteDataFiles
    from airflow_provider_floe.tables import Operation

    table = lineitem.table("flat", scale, folder / "warehouse", chosen(scale))
    settings = RewriteDataFiles(target_file_size_bytes=TARGET_BYTES, **SETTINGS[how])
    request = request_for(table, Operation.REWRITE_DATA_FILES, settings)
    context = context_for(table)

    def work() -> None:
        assert rewrite_data.run(request, context, MEMORY_BYTES).changed

    report(folder, work, lambda: clustering(sorted(folder.rglob("*.parquet"))))


def duckdb_alone(how: str, scale: float, folder: Path) -> None:
    import duckdb

    files = [str(path) for path in chosen(scale)]
    config = {"threads": "2", "memory_limit": f"{MEMORY_BYTES}B", "temp_directory": f"{folder}/spill"}

    def work() -> None:
        with duckdb.connect(config=config) as duck:
            query = f"SELECT * FROM read_parquet({files!r}) ORDER BY {', '.join(COLUMNS)}"
            if how == "z-order":
                query = f"SELECT * EXCLUDE (r0, r1, m0, m1) FROM ({ranks(files)}) ORDER BY {interleaved()}"
            duck.execute(f"COPY ({query}) TO '{folder}/all.parquet' (FORMAT parquet, COMPRESSION zstd)")

    report(folder, work, lambda: clustering([folder / "all.parquet"]))


def ranks(files: list[str]) -> str:
    ranked = ", ".join(f"dense_rank() OVER (ORDER BY {name}) - 1 AS r{n}" for n, name in enumerate(COLUMNS))
    return f"SELECT *, max(r0) OVER () m0, max(r1) OVER () m1 FROM (SELECT *, {ranked} FROM read_parquet({files!r}))"


def interleaved() -> str:
    terms = []
    for n in range(2):
        rank = f"(r{n} * {2**BITS - 1} // greatest(m{n}, 1))"
        terms += [f"((({rank} >> {bit}) & 1) << {2 * bit + 1 - n})" for bit in range(BITS)]
    return " + ".join(terms)


def clustering(paths: list[Path]) -> str:
    """The mean share of a column's values that a window of rows spans."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pa.concat_tables([pq.read_table(path, columns=list(COLUMNS)) for path in paths])
    spans = []
    for name in COLUMNS:
        column = rows[name].cast("int32").cast("int64") if name == "l_shipdate" else rows[name]
        values = column.to_numpy()
        windows = np.array_split(values, max(1, len(values) // WINDOW))
        share = np.mean([window.max() - window.min() for window in windows]) / (values.max() - values.min())
        spans.append(f"{share:.3f}")
    return f"spans {', '.join(spans)}"


if __name__ == "__main__":
    main()
