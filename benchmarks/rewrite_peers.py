"""What else writes many small Parquet files into few large ones; one of them for each process.

Usage: ``python rewrite_peers.py NAME FOLDER TARGET_BYTES LIST_OF_FILES``, in an environment that has the library. None
of them knows a catalog: each only writes files.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from measuring import report

NAME, FOLDER, TARGET = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
FILES = Path(sys.argv[4]).read_text().splitlines()
ROWS_PER_GROUP = 1024**2
THREADS = 2
MEMORY = "1GB"


def concatenate() -> None:
    """The limit of all: the bytes, and nothing but the bytes."""
    with open(FOLDER / "all.bytes", "wb") as out:
        for name in FILES:
            with open(name, "rb") as file:
                shutil.copyfileobj(file, out, 1024**2)


def decode_and_encode() -> None:
    """The limit of whoever decodes: one thread of pyarrow, a row group at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pending: list[pa.Table] = []
    rows = 0
    with pq.ParquetWriter(FOLDER / "all.parquet", pq.read_schema(FILES[0]), compression="zstd") as writer:
        for number, name in enumerate(FILES, 1):
            pending.append(pq.ParquetFile(name, memory_map=True).read(use_threads=False))
            rows += pending[-1].num_rows
            if rows >= ROWS_PER_GROUP or number == len(FILES):
                writer.write_table(pa.concat_tables(pending), row_group_size=ROWS_PER_GROUP)
                pending, rows = [], 0


def pyarrow() -> None:
    import pyarrow as pa
    import pyarrow.dataset as ds

    pa.set_cpu_count(THREADS)
    format_ = ds.ParquetFileFormat()
    ds.write_dataset(
        ds.dataset(FILES, format="parquet").scanner(batch_size=131_072),
        FOLDER,
        format="parquet",
        max_rows_per_file=8_000_000,
        min_rows_per_group=ROWS_PER_GROUP,
        max_rows_per_group=ROWS_PER_GROUP,
        file_options=format_.make_write_options(compression="zstd"),
        existing_data_behavior="overwrite_or_ignore",
    )


def duckdb() -> None:
    import duckdb

    config = {"threads": str(THREADS), "memory_limit": MEMORY, "temp_directory": str(FOLDER / "spill")}
    with duckdb.connect(config=config) as duck:
        duck.execute(
            f"COPY (SELECT * FROM read_parquet({FILES!r})) TO '{FOLDER}/out' "
            f"(FORMAT parquet, COMPRESSION zstd, FILE_SIZE_BYTES '{TARGET}B')"
        )


def polars() -> None:
    import polars as pl

    pl.scan_parquet(FILES, low_memory=True).sink_parquet(
        FOLDER / "all.parquet", compression="zstd", row_group_size=ROWS_PER_GROUP
    )


def datafusion() -> None:
    import datafusion as df

    settings = {
        "datafusion.execution.target_partitions": str(THREADS),
        "datafusion.execution.parquet.compression": "zstd(1)",
        "datafusion.execution.parquet.max_row_group_size": str(ROWS_PER_GROUP),
        "datafusion.execution.soft_max_rows_per_output_file": "8000000",
        "datafusion.execution.minimum_parallel_output_files": str(THREADS),
    }
    context = df.SessionContext(df.SessionConfig(settings))
    folders = {str(Path(name).parent) for name in FILES}
    for number, folder in enumerate(sorted(folders)):
        context.register_parquet(f"files_{number}", folder)
    union = " UNION ALL ".join(f"SELECT * FROM files_{number}" for number in range(len(folders)))
    context.sql(f"COPY ({union}) TO '{FOLDER}/out/' STORED AS PARQUET").collect()


CONTENDERS = {
    "cat": concatenate,
    "bound": decode_and_encode,
    "pyarrow": pyarrow,
    "duckdb": duckdb,
    "polars": polars,
    "datafusion": datafusion,
}

if __name__ == "__main__":
    __import__("pyarrow.dataset" if NAME in ("bound", "pyarrow") else {"cat": "shutil"}.get(NAME, NAME))
    report(FOLDER, CONTENDERS[NAME])
