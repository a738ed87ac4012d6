"""Which combinations run on disk: those that hold every pair; all of them with ``--full-matrix``."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.feature_matrix import parametrize
from harness.feature_tables import Warehouse
from harness.tables import lake


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize(metafunc)


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(lake(tmp_path), None)
