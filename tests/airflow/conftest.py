"""Airflow in this process: its home, configuration and metadata database in a temporary folder."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.tables import lake, small_files

HOME = Path(tempfile.mkdtemp(prefix="floe-airflow-"))
os.environ.update(
    AIRFLOW_HOME=str(HOME),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__UNIT_TEST_MODE="True",
    AIRFLOW__CORE__DAGS_FOLDER=str(HOME / "dags"),
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{HOME / 'airflow.db'}",
)


def pytest_sessionfinish() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.airflow)
            item.add_marker(pytest.mark.xdist_group("airflow"))


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """Airflow's metadata database, made once."""
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def floe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """A lake with the table ``db.events`` of eight small files, its connection, an empty Floe store, no policies."""
    return Deployment(tmp_path, monkeypatch)


class Deployment:
    """What a user has configured: a catalog connection, a store, a folder of policies."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.policies = folder / "dags" / "policies"
        self.policies.mkdir(parents=True)
        self.store_url = f"sqlite:///{folder / 'floe.db'}"
        self.catalog = lake(folder)
        small_files(self.catalog, 8)
        extra = {"catalog_kind": "sql", "uri": f"sqlite:///{folder}/catalog.db"}
        self.set = monkeypatch.setenv
        self.set("AIRFLOW_CONN_LAKE", json.dumps({"conn_type": "floe", "extra": extra}))
        self.set("AIRFLOW__FLOE__CATALOGS", "lake")
        self.set("AIRFLOW__FLOE__STORE_URL", self.store_url)
        self.set("AIRFLOW__FLOE__POLICIES_PATH", str(self.policies))

    def write(self, name: str, **fields: Any) -> Path:
        """A policy file; the rest of the policy compacts ``lake.db.*`` and expires snapshots on demand."""
        document = {
            "name": name,
            "tablePattern": "lake.db.*",
            "rewriteDataFiles": {},
            "expireSnapshots": {"retainLast": 1, "maxSnapshotAge": "PT0.001S"},
            **fields,
        }
        path = self.policies / f"{name}.json"
        path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
        return path

    def table(self, name: str = "events") -> Any:
        """The table as it is now."""
        return self.catalog.load_table(f"db.{name}")

    def store(self) -> Any:
        """The Floe store."""
        from airflow_provider_floe.stores.open import open_store

        return open_store(self.store_url)


@pytest.fixture
def run_dag(airflow_db: None) -> Iterator[Callable[..., Any]]:
    """Runs a DAG in this process, as ``airflow dags test`` does; answers with the DAG run."""
    try:
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    except ImportError:  # before Airflow 3.2
        from airflow.models.dagbag import DagBag, sync_bag_to_db
    from airflow.models.dagbundle import DagBundleModel
    from airflow.utils.session import create_session

    def run(dag: Any, conf: dict[str, Any] | None = None) -> Any:
        with create_session() as session:
            session.merge(DagBundleModel(name="test_bundle"))
        bag = DagBag(dag_folder=os.devnull)
        bag.bag_dag(dag)
        sync_bag_to_db(bag, bundle_name="test_bundle", bundle_version="1")
        return dag.test(run_conf=conf)

    return run
