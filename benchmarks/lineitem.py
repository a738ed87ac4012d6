"""TPC-H's lineitem as the files that a busy writer leaves behind, made once for each scale and kept in ``.cache``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import MonthTransform
from pyiceberg.types import DateType, DecimalType, LongType, NestedField, StringType

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

from harness.environments import CACHE, environment  # noqa: E402

VERSION = "1.5.5"
TPCH = (f"duckdb=={VERSION}", f"duckdb-extensions=={VERSION}", f"duckdb-extension-tpch=={VERSION}")
GENERATE = """
import sys, duckdb
from duckdb_extensions import import_extension
folder, scale, steps, extensions = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
for step in range(steps):
    duck = duckdb.connect(config={"extension_directory": extensions, "threads": "2", "memory_limit": "4GB"})
    import_extension("tpch", con=duck)
    duck.load_extension("tpch")
    duck.execute(f"CALL dbgen(sf={scale}{f', children={steps}, step={step}' if steps > 1 else ''})")
    duck.execute(f"COPY lineitem TO '{folder}/{step:03}.parquet' (FORMAT parquet, COMPRESSION zstd)")
    duck.close()
"""
SCALES = {"small": 0.01, "full": 5.0}
"""Of TPC-H: 1 is 6 million rows."""

ROWS_AT_SCALE_1 = 6_000_000
ROWS_PER_SMALL_FILE = 15_000
ROWS_PER_GROUP, GROUPS_PER_MEDIUM_FILE, GROUPS_PER_SMALL_MEDIUM_FILE = 600_000, 5, 2
"""About 17 MB, and files of about 86 MB; the third for a scale below 1, where groups are smaller."""

MONTHS = 84

_DECIMAL = DecimalType(15, 2)
_COLUMNS = {
    "l_orderkey": LongType(),
    "l_partkey": LongType(),
    "l_suppkey": LongType(),
    "l_linenumber": LongType(),
    "l_quantity": _DECIMAL,
    "l_extendedprice": _DECIMAL,
    "l_discount": _DECIMAL,
    "l_tax": _DECIMAL,
    "l_returnflag": StringType(),
    "l_linestatus": StringType(),
    "l_shipdate": DateType(),
    "l_commitdate": DateType(),
    "l_receiptdate": DateType(),
    "l_shipinstruct": StringType(),
    "l_shipmode": StringType(),
    "l_comment": StringType(),
}
SCHEMA = Schema(
    *(NestedField(number, name, kind, required=False) for number, (name, kind) in enumerate(_COLUMNS.items(), 1))
)
BY_MONTH = PartitionSpec(PartitionField(SCHEMA.find_field("l_shipdate").field_id, 1000, MonthTransform(), "month"))
LAYOUTS = ("flat", "month", "medium")
"""Small files in order of arrival; small files in a folder for each month; files of a size worth copying."""


def files(layout: str, scale: float) -> list[Path]:
    """The Parquet files of a layout, with field ids, sorted by path; made where they are not there yet."""
    name = f"medium-{_groups_per_medium_file(scale)}" if layout == "medium" else layout
    folder = CACHE / "benchmarks" / f"lineitem-{scale:g}" / name
    if not folder.exists():
        unfinished = folder.with_name(f"{name}.{os.getpid()}")
        _write(layout, scale, unfinished)
        unfinished.rename(folder)
    return sorted(folder.rglob("*.parquet"))


def scale(text: str) -> float:
    """What ``--scale`` says: a word, as other benchmarks take it, or TPC-H's number."""
    return SCALES[text] if text in SCALES else float(text)


def catalog(warehouse: Path) -> SqlCatalog:
    """The catalog of a warehouse, which is made when it is not there."""
    warehouse.mkdir(parents=True, exist_ok=True)
    return SqlCatalog("bench", uri=f"sqlite:///{warehouse}/catalog.db", warehouse=f"file://{warehouse}")


def table(layout: str, scale: float, warehouse: Path, chosen: Sequence[Path] | None = None) -> Table:
    """An Iceberg table of its own, in a new catalog under ``warehouse``, whose data are the files of a layout.

    The files stay where they are; what a rewrite writes lands in the warehouse.

    :param chosen: these of the files; default: all.
    """
    return create_table(catalog(warehouse), layout, files(layout, scale) if chosen is None else chosen)


def create_table(catalog: Catalog, name: str, paths: Sequence[Path]) -> Table:
    """The table ``bench.<name>`` whose data are these files; that named ``month`` is partitioned."""
    catalog.create_namespace_if_not_exists("bench")
    spec = BY_MONTH if name == "month" else UNPARTITIONED_PARTITION_SPEC
    made = catalog.create_table(f"bench.{name}", schema=SCHEMA, partition_spec=spec)
    made.add_files([f"file://{path}" for path in paths], check_duplicate_files=False)
    return catalog.load_table(f"bench.{name}")


def _source(scale: float) -> Path:
    folder = CACHE / "benchmarks" / f"lineitem-{scale:g}" / "source"
    if not folder.exists():
        python = environment("tpch", TPCH)
        unfinished = folder.with_name(f"source.{os.getpid()}")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        steps = max(1, round(scale * 2))
        extensions = python.parents[1] / "extensions"
        subprocess.run([python, "-c", GENERATE, unfinished, str(scale), str(steps), extensions], check=True)
        unfinished.rename(folder)
    return folder


def _groups_per_medium_file(scale: float) -> int:
    return GROUPS_PER_MEDIUM_FILE if scale >= 1 else GROUPS_PER_SMALL_MEDIUM_FILE


def _write(layout: str, scale: float, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    source = _source(scale)
    schema = schema_to_pyarrow(SCHEMA, include_field_ids=True)

    rows = int(ROWS_AT_SCALE_1 * scale)
    groups = _groups_per_medium_file(scale) if layout == "medium" else 1
    rows_each = {
        "flat": min(ROWS_PER_SMALL_FILE, rows // 20),
        "month": min(ROWS_PER_SMALL_FILE, rows // (4 * MONTHS)),
        "medium": min(ROWS_PER_GROUP, rows // 5) * groups,
    }[layout]

    def write(part: tuple[str, pa.Table]) -> None:
        path = folder / part[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(part[1].cast(schema), path, compression="zstd", row_group_size=-(-part[1].num_rows // groups))

    with ThreadPoolExecutor(2) as pool:
        parts = (_by_month if layout == "month" else _in_order)(source, rows_each)
        pending = []
        for part in parts:
            pending.append(pool.submit(write, part))
            if len(pending) > 4:
                pending.pop(0).result()
        for one in pending:
            one.result()


def _in_order(source: Path, rows_each: int) -> Iterator[tuple[str, pa.Table]]:
    number = 0
    for path in sorted(source.glob("*.parquet")):
        rows = pq.read_table(path)
        step = -(-rows.num_rows // max(1, round(rows.num_rows / rows_each)))  # no small rest
        for start in range(0, rows.num_rows, step):
            yield f"{number:06}.parquet", rows.slice(start, step)
            number += 1


def _by_month(source: Path, rows_each: int) -> Iterator[tuple[str, pa.Table]]:
    with duckdb.connect(config={"threads": "2", "memory_limit": "4GB"}) as duck:
        scan = f"read_parquet('{source}/*.parquet')"
        months = duck.execute(f"SELECT DISTINCT date_trunc('month', l_shipdate)::DATE AS m FROM {scan} ORDER BY m")
        # Fewer rows, but as many files as in the flat layout, at least one for each month.
        for (month,) in months.fetchall():
            rows = duck.sql(
                f"SELECT * FROM {scan} WHERE l_shipdate >= DATE '{month}' "
                f"AND l_shipdate < DATE '{month}' + INTERVAL 1 MONTH"
            ).to_arrow_table()
            for number, start in enumerate(range(0, rows.num_rows, rows_each)):
                yield f"{month:%Y-%m}/{number:06}.parquet", rows.slice(start, rows_each)


if __name__ == "__main__":
    for each in LAYOUTS:
        found = files(each, float(sys.argv[1]))
        print(f"{each}: {len(found):,} files, {sum(path.stat().st_size for path in found) / 1e6:,.1f} MB")
