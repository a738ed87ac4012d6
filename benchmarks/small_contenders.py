"""What rewrites a small table, one way for each process, which imports nothing before its clock runs.

Usage: ``python small_contenders.py NAME FOLDER TABLES FILES``: the folder is the warehouse of a SQL catalog; tables and
files are separated by commas.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from measuring import cpu_seconds, peak_bytes

NAME, FOLDER = sys.argv[1], Path(sys.argv[2])
TABLES, FILES = (listed.split(",") for listed in sys.argv[3:5])
URI, WAREHOUSE = f"sqlite:///{FOLDER}/catalog.db", f"file://{FOLDER}"
Work = Callable[[str], None]
"""Takes the name of a table."""


def pyarrow() -> Work:
    import pyarrow as pa
    import pyarrow.dataset  # as reading would at its first call
    import pyarrow.parquet as pq

    def work(table: str) -> None:
        rows = pa.concat_tables([pq.read_table(file) for file in FILES])
        pq.write_table(rows, FOLDER / f"{table}.parquet", compression="zstd")

    return work


def pyiceberg() -> Work:
    import pyarrow.dataset  # as reading would at its first call
    import pyarrow.parquet  # noqa: F401
    from pyiceberg.catalog.sql import SqlCatalog

    catalog = SqlCatalog("bench", uri=URI, warehouse=WAREHOUSE)

    def work(name: str) -> None:
        table = catalog.load_table(name)
        table.overwrite(table.scan().to_arrow())

    return work


def floe() -> Work:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from harness.tables import FakeContext
    from pyiceberg.catalog.sql import SqlCatalog

    from airflow_provider_floe.engines.base import OperationRequest
    from airflow_provider_floe.engines.local.engine import LocalEngine
    from airflow_provider_floe.policies.model import RewriteDataFiles
    from airflow_provider_floe.tables import Operation, TableRef

    catalog = SqlCatalog("bench", uri=URI, warehouse=WAREHOUSE)
    engine = LocalEngine(memory_limit_bytes=1024**3)

    def work(name: str) -> None:
        namespace, last = name.split(".")
        table = TableRef("bench", (namespace,), last)
        request = OperationRequest(name, table, Operation.REWRITE_DATA_FILES, RewriteDataFiles())
        result = engine.execute(request, FakeContext(lambda: catalog.load_table(name)))
        assert result.changed, result.message

    return work


def taken(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    started, before = time.perf_counter(), cpu_seconds()
    work()
    return time.perf_counter() - started, cpu_seconds() - before


def main() -> None:
    """Print the seconds of each stage and the most memory."""
    ready: list[Work] = []
    imports = taken(lambda: ready.append({"pyarrow": pyarrow, "pyiceberg": pyiceberg, "floe": floe}[NAME]()))
    first, *others = [taken(lambda table=table: ready[0](table)) for table in TABLES]
    again = [median(figures) for figures in zip(*others, strict=True)]
    print(json.dumps({"imports": imports, "first": first, "again": again, "peak": peak_bytes()}))


if __name__ == "__main__":
    main()
