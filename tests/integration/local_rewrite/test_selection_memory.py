"""Choosing files and saying where they stand takes memory for candidates only, and some ten bytes for each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
FEW, MANY = 50_000, 350_000

CHOOSE = """
import sys
from itertools import count
from pathlib import Path

import metadata_tables
from airflow_provider_floe.iceberg.manifests import snapshot_manifests
from airflow_provider_floe.iceberg.selection import survey_table
from airflow_provider_floe.policies.model import RewriteDataFiles

folder, files, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
table = metadata_tables.create_table(metadata_tables.catalog(folder), "events")
first = metadata_tables.write_manifest(table, 0, 2_500, 1, size=lambda rnd: size)
copies = [metadata_tables.copied(first, f"copy-{number}") for number in range(files // 2_500 - 1)]
metadata_tables.commit(table, [(1, [first, *copies])], count(1_767_225_600_000))
survey = survey_table(table.io, table.metadata, snapshot_manifests(table), RewriteDataFiles(), keep_files=False)
assert survey.data_files == files
standing = sum(len(one.positions) for one in survey.groups.standing(range(len(survey.groups))))
assert standing == survey.groups.file_count
print(standing, int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024)
"""


def peak(folder: Path, files: int, size: int) -> tuple[int, int]:
    """Files that are chosen of a table with so many of one size, and the most memory of the process in bytes."""
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS)}
    command = [sys.executable, "-c", CHOOSE, str(folder), str(files), str(size)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    chosen, rss = done.stdout.split()
    return int(chosen), int(rss)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    ("size", "chosen", "bytes_per_file"), [(10_000, 1, 120), (512 * 1024**2, 0, 40)], ids=["all too small", "all fine"]
)
def test_memory_grows_by_little_with_the_number_of_files(
    tmp_path: Path, size: int, chosen: int, bytes_per_file: int
) -> None:
    few, before = peak(tmp_path / "few", FEW, size)
    many, after = peak(tmp_path / "many", MANY, size)
    assert (few, many) == (FEW * chosen, MANY * chosen)
    assert (after - before) / (MANY - FEW) < bytes_per_file
