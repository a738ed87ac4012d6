"""One Airflow for all of these tests: this package's wheel in an environment of its own, two catalogs, one start."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lakehouse
import pyarrow as pa
import pytest
from deployment import LEASE_SECONDS, Deployment
from harness.airflow_standalone import Standalone
from harness.environments import REPOSITORY, environment
from measure import measure
from pyiceberg.catalog.sql import SqlCatalog

from airflow_provider_floe.stores.open import open_store

HERE = Path(__file__).parent
SLOW_TABLES = ("killed_task", "killed_supervisor")
SHARED = """
from airflow_provider_floe.dag_factory import FloePolicyDag

dag = FloePolicyDag("shared", dag_id="shared_groups", task_kwargs={"max_tasks_per_table": 3})
"""


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel and what it requires, nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", folder, REPOSITORY]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    kept = REPOSITORY / ".cache" / wheel.name
    kept.parent.mkdir(exist_ok=True)
    shutil.copyfile(wheel, kept)
    return environment(
        "wheel",
        ["--constraint", str(REPOSITORY / "constraints.txt"), str(kept)],
        fingerprint=hashlib.sha256(kept.read_bytes()).hexdigest(),
    )


@pytest.fixture(scope="session")
def deployment(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Airflow running, its DAGs found, all of them unpaused; nothing triggered yet."""
    root = tmp_path_factory.mktemp("standalone")
    home = root / "airflow"
    (home / "dags").mkdir(parents=True)
    shutil.copytree(REPOSITORY / "demo" / "policies", home / "dags" / "policies")
    shutil.copyfile(HERE / "policies.yaml", home / "dags" / "policies" / "more.yaml")
    (home / "dags" / "shared.py").write_text(SHARED)
    lake = lakehouse.build(root / "lake")
    _small_files(lake, "scratch", "idle")
    slow, brakes = _slow_catalog(root / "slow"), root / "brakes"
    brakes.mkdir()
    airflow = Standalone(
        python,
        home,
        {
            "PYTHONPATH": str(HERE / "modules"),
            "FLOE_TEST_BRAKES": str(brakes),
            "AIRFLOW__FLOE__CATALOGS": "lake,slow",
            "AIRFLOW__FLOE__LEASE_SECONDS": str(LEASE_SECONDS),
            "AIRFLOW__FLOE__BATCH_BYTES": "20000",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
        },
    )
    airflow.cli("db", "migrate")
    airflow.cli("floe", "init", str(home / "dags"))
    _add_connection(airflow, "lake", lakehouse.catalog_properties(root / "lake"))
    _add_connection(airflow, "slow", lakehouse.catalog_properties(root / "slow"), {"py-io-impl": "slow_io.SlowFileIO"})
    before = {state.name: state for state in measure(lake)}
    with airflow:
        policies = ("web", "sales", "audit", "slow")
        dags = ("floe_maintenance", "shared_groups", *(f"floe_policy_{name}" for name in policies))
        airflow.wait_for_dags(dags)
        for dag_id in dags:
            airflow.set_paused(dag_id, False)
        store = open_store(f"sqlite:///{home}/floe.db")
        yield Deployment(airflow, lake, before, slow, brakes, store)
        store.close()


def _add_connection(
    airflow: Standalone, conn_id: str, properties: dict[str, str], more: dict[str, str] | None = None
) -> None:
    extra = {"catalog_kind": "sql", "uri": properties["uri"], "warehouse": properties["warehouse"]}
    if more:
        extra["properties"] = json.dumps(more)
    airflow.cli("connections", "add", conn_id, "--conn-type", "floe", "--conn-extra", json.dumps(extra))


def _slow_catalog(root: Path) -> SqlCatalog:
    (root / "warehouse").mkdir(parents=True)
    catalog = SqlCatalog("slow", **lakehouse.catalog_properties(root))
    catalog.create_namespace("db")
    for name in SLOW_TABLES:
        _small_files(catalog, "db", name)
    catalog.create_namespace("wide")
    _small_files(catalog, "wide", "shared", parts=5)
    return catalog


def _small_files(catalog: SqlCatalog, namespace: str, name: str, *, parts: int = 1) -> None:
    numbers = list(range(2000))
    rows = pa.table(
        {"id": numbers, "part": [n % parts for n in numbers], "note": [f"note {number}" for number in numbers]}
    )
    table = catalog.create_table(f"{namespace}.{name}", schema=rows.schema)
    if parts > 1:
        with table.update_spec() as spec:
            spec.add_identity("part")
    for start in range(0, 2000, 200):
        table.append(rows.slice(start, 200))
