"""What else rewrites the data files of an Iceberg table, with its commit; one of them for each process.

Usage: ``python compaction_peers.py NAME FOLDER TARGET_BYTES TABLE [JAR] URI``, in an environment that has the library.
The URI is that of a SQL or REST catalog whose warehouse is ``FOLDER/warehouse``. Each may use two threads, and about
1 GB where it can be told so; the JVM has twice as much.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from measuring import cpu_seconds, report

NAME, FOLDER, TARGET, TABLE, URI = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[-1]
WAREHOUSE = f"file://{FOLDER}/warehouse"
THREADS = 2
JVM_MEMORY = "2g"


def zamboni() -> None:
    from pyiceberg.catalog.sql import SqlCatalog
    from zamboni import CompactionConfig, TableCompactor
    from zamboni.session import CatalogSession

    catalog = SqlCatalog("bench", uri=URI, warehouse=WAREHOUSE)
    config = CompactionConfig(target_file_size_bytes=TARGET, temp_directory=str(FOLDER / "spill"))

    def work() -> None:
        with CatalogSession.from_catalog(catalog, threads=THREADS, memory_limit_bytes=1024**3) as session:
            done = TableCompactor(session, TABLE, config).execute()
        assert done.rewritten_data_files, done.describe()

    report(FOLDER, work)


def compactor() -> None:
    from iceberg_compaction import Compaction, CompactionConfig, RestCatalog

    catalog = RestCatalog("bench", URI, WAREHOUSE, {})
    config = CompactionConfig(
        strategy="full",
        target_file_size_bytes=TARGET,
        max_input_parallelism=THREADS,
        max_output_parallelism=THREADS,
    )

    def work() -> None:
        assert Compaction(catalog, TABLE, config).run(), "nothing to do"

    report(FOLDER, work)


def spark() -> None:
    """The start of the JVM and of the session is told apart; what the JVM still learns in the call is the call's."""
    from pyspark.sql import SparkSession

    before, started = cpu_seconds(), time.perf_counter()
    settings = {
        "spark.jars": sys.argv[5],
        "spark.driver.memory": JVM_MEMORY,
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.local.dir": f"{FOLDER}/spill",
        "spark.ui.enabled": "false",
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.lake.type": "rest",
        "spark.sql.catalog.lake.uri": URI,
        "spark.sql.catalog.lake.rest-metrics-reporting-enabled": "false",
    }
    session = SparkSession.builder.master(f"local[{THREADS}]").config(map=settings).getOrCreate()
    start_up = f"besides {time.perf_counter() - started:.1f} s, {cpu_seconds() - before:.1f} CPU s to start"

    def work() -> str:
        (done,) = session.sql(
            f"CALL lake.system.rewrite_data_files(table => '{TABLE}', "
            f"options => map('rewrite-all', 'true', 'target-file-size-bytes', '{TARGET}'))"
        ).collect()
        assert done.rewritten_data_files_count, done
        return start_up

    report(FOLDER, work)
    session.stop()


if __name__ == "__main__":
    {"zamboni": zamboni, "compactor": compactor, "spark": spark}[NAME]()
