"""The embedded engine on tables of every pair of features."""

from __future__ import annotations

from pathlib import Path

from harness.feature_maintenance import maintain
from harness.feature_tables import Combination, Warehouse, build


def test_maintenance_of(tmp_path: Path, warehouse: Warehouse, combination: Combination) -> None:
    maintain(build(warehouse.catalog, combination), combination, warehouse, tmp_path)
