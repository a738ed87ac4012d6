"""Benchmarks, run small so that they do not rot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from harness.environments import REPOSITORY

FOLDER = REPOSITORY / "benchmarks"
NEED_SERVERS = ("bench_engines.py", "bench_store.py")
"""They run with the tests on services, all others in the integration tests."""


def scripts() -> list[str]:
    """The names of all."""
    return sorted(path.name for path in FOLDER.glob("bench_*.py"))


def run(script: str, *options: str, home: Path) -> str:
    """What the benchmark prints, which must not fail.

    :param home: AIRFLOW_HOME of its own.
    """
    environment = {**os.environ, "AIRFLOW_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, FOLDER / script, *options], capture_output=True, text=True, cwd=home, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
