"""What holds for tests of every kind."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# The same examples at every run, so that a change is judged by what it changes; `make fuzz` looks for new ones.
settings.register_profile("fixed", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fuzz", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all-versions",
        action="store_true",
        help="run every case on every version of the servers, also where one case an operation is the rule",
    )
