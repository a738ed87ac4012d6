"""What the metadata of a rewrite of data files costs in CPU and memory: choosing files, opening groups, committing.

The tables are metadata alone. Each contender runs in a process of its own. The bound is reading every manifest once by
projection, whatever is made of it; the peers are pyiceberg's ways to list files, on a part of the table.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import metadata_tables
from measured_context import MeasuredContext
from measuring import Measured, measure, report, show
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from airflow_provider_floe.engines.local.commit import commit_replace
from airflow_provider_floe.engines.local.live_index import DataIndex
from airflow_provider_floe.engines.local.pyiceberg_manifests import data_file
from airflow_provider_floe.engines.local.replace import Replacement
from airflow_provider_floe.engines.local.verify import expectations
from airflow_provider_floe.iceberg.manifests import data_rows, read_ahead, snapshot_manifests
from airflow_provider_floe.iceberg.selection import Survey, survey_table
from airflow_provider_floe.policies.model import RewriteDataFiles

SCALES = {"small": ((6,), 2_000), "full": ((100, 1_000), 10_000)}
"""Numbers of manifests, and entries of each."""
PEER = 20_000
"""Entries, about, that pyiceberg is measured on."""
DIFFERENT = 20
"""Manifests that differ; the others are these again under other names."""
TARGET = 512 * 1024**2
FEW, MOST = 0.01, 0.95
"""Shares of files that are too small."""


def main() -> None:
    """Print what each contender took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", choices=SCALES, default="small")
    parser.add_argument("--work", nargs=2, metavar=("CONTENDER", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        name, folder = given.work
        report(Path(folder), lambda: CONTENDERS[name](open_table(Path(folder).parent / "tables", name)))
        return
    sizes, entries = SCALES[given.scale]
    for manifests in sizes:
        compare(manifests, entries)


def compare(manifests: int, entries: int) -> None:
    """All contenders on tables of one size."""
    with tempfile.TemporaryDirectory() as folder:
        lake = metadata_tables.catalog(Path(folder) / "tables")
        fill(metadata_tables.create_table(lake, "fine"), manifests, entries, FEW)
        fill(metadata_tables.create_table(lake, "small"), manifests, entries, MOST)
        fill(metadata_tables.create_table(lake, "peer"), max(1, PEER // entries), min(entries, PEER), MOST)
        print(f"{manifests * entries:,} data files in {manifests:,} manifests")
        rows: list[Measured] = []
        for name in CONTENDERS:
            command = [sys.executable, __file__, "--work", name, f"{folder}/out"]
            if (found := measure(name, Path(folder) / "out", command)) is not None:
                rows.append(found)
        show(rows, bound=BOUND)
        files = {one.name: max(1, PEER // entries) * min(entries, PEER) for one in rows if "pyiceberg" in one.name}
        for one in rows:
            number = files.get(one.name, manifests * entries)
            print(
                f"  {one.name:<44}{number / one.cpu:>12,.0f} files/s/core{one.rss / number:>12,.0f} bytes/file at peak"
            )


def fill(table: Table, manifests: int, entries: int, small: float) -> None:
    """Manifests of one snapshot, of whose files some share is too small."""

    def size(rnd: random.Random) -> int:
        return rnd.randrange(1_000, TARGET // 64) if rnd.random() < small else rnd.randrange(TARGET, TARGET * 3 // 2)

    written = [
        metadata_tables.write_manifest(table, number, entries, 1, size=size)
        for number in range(min(manifests, DIFFERENT))
    ]
    copies = [
        metadata_tables.copied(written[number % DIFFERENT], f"copy-{number}") for number in range(DIFFERENT, manifests)
    ]
    metadata_tables.commit(table, [(1, [*written, *copies])], count(1_767_225_600_000))


def open_table(folder: Path, contender: str) -> Table:
    """The table that a contender works on."""
    lake = SqlCatalog("lake", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse")
    name = "peer" if "pyiceberg" in contender else "small" if "95 %" in contender else "fine"
    return lake.load_table(f"db.{name}")


def read(table: Table) -> None:
    """Every manifest by projection."""
    for manifest, data in read_ahead(table.io, snapshot_manifests(table)):
        for _ in data_rows(manifest, data):
            continue


def choose(table: Table) -> Survey:
    """The selection."""
    return survey_table(table.io, table.metadata, snapshot_manifests(table), RewriteDataFiles())


def say(table: Table) -> str:
    """The selection, in numbers."""
    groups = choose(table).groups
    return f"{groups.file_count:,} files in {len(groups):,} groups"


def rewrite(table: Table) -> str:
    """All that a rewrite does but for the data: the groups are opened, and a file takes the place of each."""
    survey = choose(table)
    groups, manifests = survey.groups, snapshot_manifests(table)
    added = []
    for window in groups.windows():
        opened = list(window)
        expected = expectations(table.io, manifests, opened, table.schema())
        for group, one in zip(opened, expected, strict=True):
            path = f"{table.location()}/data/{survey.selection.mark}-{group.number}.parquet"
            added.append(data_file(path, Record(*group.partition), 0, group.size_bytes, None, record_count=one.rows))
    after = commit_replacement(table, survey, range(len(groups)), added)
    live = sum(one.existing_files_count or 0 for one in snapshot_manifests(after))
    return f"{groups.file_count:,} files became {len(added):,}, {live:,} stay"


def commit_replacement(table: Table, survey: Survey, numbers: range, added: list[DataFile]) -> Table:
    """Put new files in the place of those of the groups with these numbers; the table afterwards."""
    replacement = Replacement(
        groups=survey.groups,
        numbers=numbers,
        added=added,
        sequence_number=table.metadata.last_sequence_number,
        moved=False,
        known_deletes=frozenset(),
        droppable=frozenset(),
    )
    index = DataIndex(table.io, survey.totals)
    context = MeasuredContext(table, datetime.now(UTC))
    base = table.metadata.current_snapshot_id
    assert base is not None
    done = commit_replace(context, "benchmark", base, lambda attempt: replacement.change(attempt, index))
    summary = done.table.metadata.snapshot_by_id(done.snapshot_id).summary
    assert summary["deleted-data-files"] == str(survey.groups[numbers.start : numbers.stop].file_count)
    return done.table


BOUND = "reading every manifest by projection"
CONTENDERS: dict[str, Callable[[Table], str | None]] = {
    BOUND: read,
    "floe, choosing, 1 % too small": say,
    "floe, choosing, 95 % too small": say,
    "floe, all but the data, 1 % too small": rewrite,
    "pyiceberg, inspect.files() of a part": lambda table: str(table.inspect.files().num_rows),
    "pyiceberg, plan_files() of a part": lambda table: str(len(list(table.scan().plan_files()))),
}

if __name__ == "__main__":
    main()
