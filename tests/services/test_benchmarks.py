"""The benchmarks that start servers run at their smallest."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.benchmarks import NEED_SERVERS, run

pytestmark = pytest.mark.services

OPTIONS = {"bench_engines.py": ["--engines", "local"]}
"""The other engines' servers take a minute to start; their own tests hold that they work."""
SHOWS = {
    "bench_engines.py": ["rewrite_manifests", "rewrite_data_files", "expire_snapshots"],
    "bench_store.py": ["history of a table", "ratio"],
}
"""What stands in the tables."""


@pytest.mark.parametrize("script", NEED_SERVERS)
def test_benchmark(script: str, tmp_path: Path) -> None:
    printed = run(script, *OPTIONS.get(script, []), home=tmp_path)
    assert [label for label in SHOWS[script] if label not in printed] == []
