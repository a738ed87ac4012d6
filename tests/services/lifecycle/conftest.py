"""One Airflow for these tests, on the harness's Trino and Spark."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from elsewhere_deployment import Deployment
from harness.airflow_standalone import Standalone
from harness.services.brake import CommitBrake
from harness.services.rest import rest_catalog
from harness.services.running import use
from harness.services.s3 import file_io_properties
from harness.tables import SCHEMA, append_files
from trino.dbapi import connect

from airflow_provider_floe.stores.open import open_store

ON_TRINO = ("ends", "failed", "cleared")
_DAGS = """\
from datetime import timedelta

from airflow.sdk import DAG
from airflow_provider_floe.dag_factory import load_policy_dags

# Retries are for an Airflow that cannot start a task in time on a busy machine
again = {"retries": 3, "retry_delay": timedelta(seconds=2)}
load_policy_dags(globals(), schedule=None, task_kwargs={"deferrable": True, **again})
"""


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    home = tmp_path_factory.mktemp("elsewhere") / "airflow"
    policies = home / "dags" / "policies"
    policies.mkdir(parents=True)
    (home / "dags" / "elsewhere.py").write_text(_DAGS)
    namespace, braked = f"far_{uuid4().hex[:8]}", f"braked_{uuid4().hex[:8]}"
    for name in (*ON_TRINO, "spark"):
        document = {
            "name": name,
            "tablePattern": f"lake.{namespace}.{name}",
            "engine": "trino" if name in ON_TRINO else "spark",
            "rewriteDataFiles": {},
        }
        (policies / f"{name}.yaml").write_text(yaml.safe_dump(document))
    with (
        use("s3", "rest", "trino-476", "spark-connect-4.1") as services,
        CommitBrake(services["rest"]["uri"]) as brake,
    ):
        trino, spark, s3 = services["trino-476"], services["spark-connect-4.1"], services["s3"]
        catalog = rest_catalog(services)
        catalog.create_namespace(namespace)
        for name in (*ON_TRINO, "spark"):
            append_files(catalog.create_table((namespace, name), schema=SCHEMA), 6)
        connect_trino = partial(connect, trino["host"], int(trino["port"]), user="tester")
        properties = {
            "iceberg.catalog.type": "rest",
            "iceberg.rest-catalog.uri": brake.uri,
            "fs.native-s3.enabled": "true",
            "s3.endpoint": s3["endpoint"],
            "s3.region": s3["region"],
            "s3.path-style-access": "true",
            "s3.aws-access-key": s3["key"],
            "s3.aws-secret-key": s3["secret"],
        }
        told = ", ".join(f"\"{key}\" = '{value}'" for key, value in properties.items())
        with connect_trino() as connection:
            connection.cursor().execute(f"CREATE CATALOG {braked} USING iceberg WITH ({told})").fetchall()
        lake = {"catalog_kind": "rest", "uri": services["rest"]["uri"], "properties": file_io_properties(s3)}
        connections = {
            "LAKE": {"conn_type": "floe", "extra": lake},
            "TRINO_FAR": {
                "conn_type": "trino",
                "host": trino["host"],
                "port": int(trino["port"]),
                "login": "tester",
                "extra": {"floe_catalogs": {"lake": braked}},
            },
            "SPARK_FAR": {
                "conn_type": "spark_connect",
                "host": spark["host"],
                "port": int(spark["port"]),
                "extra": {"floe_catalogs": {"lake": spark["catalog"]}},
            },
        }
        airflow = Standalone(
            Path(sys.executable),
            home,
            {
                **{f"AIRFLOW_CONN_{name}": json.dumps(told) for name, told in connections.items()},
                "AIRFLOW__FLOE__CATALOGS": "lake",
                "AIRFLOW__FLOE__TRINO_CONN_ID": "trino_far",
                "AIRFLOW__FLOE__SPARK_CONN_ID": "spark_far",
            },
        )
        try:
            airflow.cli("db", "migrate")
            with airflow:
                dags = tuple(f"floe_policy_{name}" for name in (*ON_TRINO, "spark"))
                airflow.wait_for_dags(dags)
                for dag_id in dags:
                    airflow.set_paused(dag_id, False)
                store = open_store(f"sqlite:///{home}/floe.db")
                yield Deployment(airflow, catalog, brake, connect_trino, store, namespace)
                store.close()
        finally:
            brake.drop()
            with connect_trino() as connection:
                connection.cursor().execute(f"DROP CATALOG {braked}").fetchall()
