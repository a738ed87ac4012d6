"""The rooms import each other one way only, and the core never imports Airflow."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "airflow_provider_floe"
NAME = PACKAGE.name

# room -> rooms whose modules it may import, beside itself and the words that all share
ALLOWED = {
    "policies": set(),
    "iceberg": {"policies"},
    "health": {"policies", "iceberg"},
    "engines": {"policies", "iceberg", "health"},
    "planning": {"policies", "health", "engines"},
    "catalogs": {"policies"},
    "stores": {"policies", "health", "planning", "engines"},
    "maintenance": {"policies", "iceberg", "health", "engines", "planning", "catalogs", "stores"},
}
SHARED = {"tables", "errors", "text"}


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_room_imports_only_what_lies_below_it(room: str) -> None:
    allowed = ALLOWED[room] | SHARED | {room}
    for path in (PACKAGE / room).rglob("*.py"):
        for name in imports(path):
            parts = name.split(".")
            assert parts[0] != "airflow", f"{path.name} imports {name}"
            if parts[0] == NAME and len(parts) > 1 and parts[1] != "__version__":
                assert parts[1] in allowed, f"{room}/{path.name} imports {name}"


def test_the_core_runs_without_airflow() -> None:
    code = (
        f"import {NAME}.maintenance.run, {NAME}.engines.local.engine, {NAME}.stores.open, {NAME}.catalogs.client, sys\n"
        "loaded = [name for name in sys.modules if name == 'airflow' or name.startswith('airflow.')]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
