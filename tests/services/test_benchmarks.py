"""The benchmarks that start servers run at their smallest."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.benchmarks import NEED_SERVERS, run

pytestmark = pytest.mark.services

RUNS = {
    "bench_engines.py": (["--engines", "local"], ["rewrite_manifests", "rewrite_data_files", "expire_snapshots"]),
    "bench_store.py": ([], ["history of a table", "ratio"]),
}
"""Options, and what stands in the tables."""


def test_every_benchmark_that_needs_servers_runs() -> None:
    assert sorted(RUNS) == sorted(NEED_SERVERS)


@pytest.mark.parametrize("script", RUNS)
def test_benchmark(script: str, tmp_path: Path) -> None:
    options, shown = RUNS[script]
    printed = run(script, *options, home=tmp_path)
    assert [label for label in shown if label not in printed] == []
