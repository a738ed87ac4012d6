"""Each benchmark that needs no server runs at its smallest, without peers that would have to be installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from harness.benchmarks import NEED_SERVERS, run, scripts

OPTIONS = {"bench_rewrite.py": ["--layouts", "month", "medium", "--peers", "duckdb"]}
"""Flat files are what others rewrite."""
SHOWS = {
    "bench_dag_parse.py": ["policy DAGs", "hand-written DAGs"],
    "bench_rewrite.py": ["month: ", "medium: ", "limit: ", "Floe, with commit", "DuckDB COPY", "goal: "],
    "bench_small.py": ["limit: ", "Floe", "pyiceberg", "goal: "],
    "bench_sort.py": ["DuckDB", "Floe", "sort", "z-order"],
}
"""What else stands in the tables; in all stands what is ours."""
_ROW = re.compile(r"^ +\S.*\d", re.MULTILINE)


@pytest.mark.parametrize("script", [script for script in scripts() if script not in NEED_SERVERS])
def test_benchmark(script: str, tmp_path: Path) -> None:
    printed = run(script, *OPTIONS.get(script, []), home=tmp_path)
    assert [label for label in SHOWS.get(script, ["floe"]) if label not in printed] == []
    assert len(_ROW.findall(printed)) > 1, "no table"
    assert "failed: " not in printed
