"""Each benchmark that needs no server runs at its smallest, without peers that would have to be installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.benchmarks import NEED_SERVERS, run, scripts

SHOWS = {
    "bench_dag_parse.py": ["policy DAGs", "hand-written DAGs"],
    "bench_expiry.py": ["floe", "pyiceberg"],
    "bench_health.py": ["floe", "pyiceberg"],
    "bench_manifests.py": ["floe", "pyiceberg"],
    "bench_orphans.py": ["floe", "duckdb"],
    "bench_rewrite.py": ["month: ", "medium: ", "limit: ", "Floe, with commit", "DuckDB COPY", "goal: "],
    "bench_small.py": ["limit: ", "Floe", "pyiceberg", "goal: "],
    "bench_sort.py": ["DuckDB", "Floe", "sort", "z-order"],
}
"""What stands in the tables."""
OPTIONS = {"bench_rewrite.py": ["--layouts", "month", "medium", "--peers", "duckdb"]}
"""Flat files are what others rewrite."""


def test_every_benchmark_runs_in_a_test() -> None:
    assert scripts() == sorted([*SHOWS, *NEED_SERVERS])


@pytest.mark.parametrize("script", SHOWS)
def test_benchmark(script: str, tmp_path: Path) -> None:
    printed = run(script, *OPTIONS.get(script, []), home=tmp_path)
    assert [label for label in SHOWS[script] if label.lower() not in printed.lower()] == []
    assert "failed" not in printed
