"""What holds for tests of every kind."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# The same examples at every run, so that a change is judged by what it changes; `make fuzz` looks for new ones.
settings.register_profile("fixed", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fuzz", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

_main: Any = sys.modules["__main__"]
if _main.__spec__ is None and not hasattr(_main, "__file__"):
    # a worker of pytest-xdist; Spark's client takes a process of this kind for a run of its own doctests, and exits
    _main.__spec__ = SimpleNamespace(name=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all-versions",
        action="store_true",
        help="run every case on every version of the servers, also where one case an operation is the rule",
    )
    parser.addoption(
        "--full-matrix",
        action="store_true",
        help="run the local engine on tables of every combination of features, on disk and in S3, not just every pair",
    )
    parser.addoption(
        "--matrix-shard", default="1/1", help="run one share of the full matrix, given as 3/8, the third of eight"
    )
