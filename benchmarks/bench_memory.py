"""The most memory that a rewrite of data files takes at each step, over the metadata of up to 20 million small files.

Nearly all files are candidates. Data files of that number cannot be made, so each step is shown at the size that
matters to it: choosing, among all candidates; opening, of the most files that are open at a time; the commit, with the
most files that one commit replaces, scattered over all manifests; and the whole operation, which chooses among all
candidates, with the limit of a run lowered to the files that are there: it rewrites these, and its commit carries the
other millions.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from math import nan
from pathlib import Path

import metadata_tables
import pyarrow as pa
import pyarrow.parquet as pq
from bench_selection import MOST, TARGET, choose, commit_replacement
from measured_context import MeasuredContext, request
from measuring import Measured, at_most, measure, report, show, show_goals
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from airflow_provider_floe.engines.local import rewrite_data
from airflow_provider_floe.engines.local.group_writer import MOST_OPEN_COLUMNS
from airflow_provider_floe.engines.local.pyiceberg_manifests import data_file
from airflow_provider_floe.engines.local.verify import expectations
from airflow_provider_floe.iceberg import grouping
from airflow_provider_floe.iceberg.lots import lots
from airflow_provider_floe.iceberg.manifests import snapshot_manifests
from airflow_provider_floe.policies.model import RewriteDataFiles
from airflow_provider_floe.tables import Operation

SCALES = {"small": ((6,), 2_000), "full": ((100, 1_000, 2_000), 10_000)}
"""Numbers of manifests, and entries of each."""
DIFFERENT = 20
"""Manifests without stored files that differ; the others are these again under other names."""
WITH_STORED = 10
"""Manifests that hold files which are there, a fifth of theirs."""
MONTH = 999
"""Partition of the files that are there."""
ROWS = 50
MEMORY = 768 * 1024**2
"""For buffers of the engine."""
GOAL = 1_000
"""MB."""


def main() -> None:
    """Print what each step took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", choices=SCALES, default="small")
    parser.add_argument("--manifests", type=int, help="one size only")
    parser.add_argument("--work", nargs=2, metavar=("STEP", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        step, folder = given.work
        report(Path(folder), lambda: STEPS[step](open_table(Path(folder).parent / "tables", step)))
        return
    sizes, entries = SCALES[given.scale]
    for manifests in [given.manifests] if given.manifests else sizes:
        run(manifests, entries)


def run(manifests: int, entries: int) -> None:
    """All steps on a table of one size."""
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), manifests, entries)
        print(f"{manifests * entries:,} data files in {manifests:,} manifests", flush=True)
        rows: list[Measured] = []
        for step in STEPS:
            command = [sys.executable, __file__, "--work", step, f"{folder}/out"]
            rows.append(measure(step, Path(folder) / "out", command))
        show(rows, bound=CHOOSING)
        show_goals(
            [at_most(f"peak memory, {one.name}", nan if one.failed else one.rss / 1e6, GOAL, " MB") for one in rows]
        )


def fill(folder: Path, manifests: int, entries: int) -> None:
    """A table of one snapshot, of whose files nearly all are too small and a few are there."""
    table = metadata_tables.create_table(metadata_tables.catalog(folder / "tables"), "events")
    stored = metadata_tables.StoredFiles(write_file(folder / "stored.parquet"), ROWS, MONTH, share=0.2)
    with_stored = min(WITH_STORED, manifests // 2)
    there = [
        metadata_tables.write_manifest(table, number, entries, 1, size=size_of, stored=stored)
        for number in range(with_stored)
    ]
    others = manifests - with_stored
    written = [
        metadata_tables.write_manifest(table, with_stored + number, entries, 1, size=size_of)
        for number in range(min(others, DIFFERENT))
    ]
    copies = [
        metadata_tables.copied(written[number % DIFFERENT], f"copy-{number}") for number in range(DIFFERENT, others)
    ]
    metadata_tables.commit(table, [(1, [*there, *written, *copies])], count(1_767_225_600_000))
    for step in STEPS:
        metadata_tables.register(table, _name(step))


def size_of(rnd: random.Random) -> int:
    """Bytes of a file that is not there."""
    return rnd.randrange(1_000, TARGET // 64) if rnd.random() < MOST else rnd.randrange(TARGET, TARGET * 3 // 2)


def write_file(path: Path) -> Path:
    """A Parquet file with rows of the table."""
    names = ["month", *(f"c{column}" for column in range(2, metadata_tables.COLUMNS + 1))]
    fields, columns = [], []
    for number, name in enumerate(names, 1):
        kind = pa.int32() if number == 1 else pa.int64() if number % 2 else pa.string()
        values = [MONTH] * ROWS if number == 1 else [number * ROWS + row for row in range(ROWS)]
        fields.append(pa.field(name, kind, metadata={"PARQUET:field_id": str(number)}))
        columns.append(pa.array([str(one) for one in values] if kind == pa.string() else values, kind))
    pq.write_table(pa.table(columns, schema=pa.schema(fields)), path)
    return path


def _name(step: str) -> str:
    return f"step_{list(STEPS).index(step)}"


def open_table(folder: Path, step: str) -> Table:
    """The table that a step begins with, the same for all."""
    lake = SqlCatalog("lake", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse")
    return lake.load_table(f"db.{_name(step)}")


def say(table: Table) -> str:
    """The selection, in numbers."""
    groups = choose(table).groups
    return f"{groups.file_count:,} files in {len(groups):,} groups; {groups.left_text or 'nothing left'}"


def open_files(table: Table) -> str:
    """The selection, and the files of the first groups with what the manifests say of them, as many as are open."""
    survey = choose(table)
    window = next(survey.groups.windows(MOST_OPEN_COLUMNS // len(table.schema().fields)))
    opened = list(window)
    found = expectations(table.io, snapshot_manifests(table), opened, table.schema())
    return f"{sum(one.files for one in found):,} files in {len(opened):,} groups"


def commit(table: Table) -> str:
    """The selection, and a commit of as many files as one commit may replace; the new files are made up."""
    survey = choose(table)
    numbers = next(lots(survey.groups.columns.count, rewrite_data.MOST_COMMIT_FILES))
    groups = survey.groups[numbers.start : numbers.stop]
    columns = survey.groups.columns
    added = [
        data_file(
            f"{table.location()}/data/{survey.selection.mark}-{number}.parquet",
            Record(*columns.places[columns.place[number]][1]),
            0,
            int(columns.size[number]),
            None,
            record_count=int(columns.records[number]),
        )
        for number in numbers
    ]
    commit_replacement(table, survey, numbers, added)
    return f"{groups.file_count:,} files became {len(added):,}"


def rewrite(table: Table) -> str:
    """The operation as it is, limited to the files that are there: they are the fewest bytes, so they come first."""
    there = sum(len(list(folder.iterdir())) for folder in Path(data_folder(table)).glob(f"month={MONTH}"))
    grouping.MOST_RUN_FILES = there
    settings = RewriteDataFiles(rewrite_job_order="BYTES_ASC")
    context = MeasuredContext(table, datetime.now(UTC))
    result = rewrite_data.run(request(table, Operation.REWRITE_DATA_FILES, settings), context, MEMORY)
    assert result.files_rewritten == there
    return result.message


def data_folder(table: Table) -> str:
    """Where the files are that are there."""
    return f"{table.location().removeprefix('file://')}/data"


CHOOSING = "floe, choosing"
STEPS: dict[str, Callable[[Table], str]] = {
    CHOOSING: say,
    "floe, choosing and opening": open_files,
    "floe, choosing and the largest commit": commit,
    "floe, the whole rewrite of what is there": rewrite,
}

if __name__ == "__main__":
    main()
