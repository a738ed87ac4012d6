"""Runs the main job with engine Spark on one table: in a test, or as a process of its own that a test kills."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from harness.services.base import Facts
from harness.services.s3 import file_io_properties

from airflow_provider_floe.catalogs.base import ConnectionFields
from airflow_provider_floe.catalogs.client import connect
from airflow_provider_floe.engines.spark.connect import ConnectRoute
from airflow_provider_floe.engines.spark.engine import SparkEngine
from airflow_provider_floe.health.report import TableId
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.request import RunRequest, RunResult
from airflow_provider_floe.maintenance.run import run
from airflow_provider_floe.maintenance.settings import Settings
from airflow_provider_floe.planning.model import RunMode
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.stores.open import open_store
from airflow_provider_floe.tables import Operation, TableRef


def environment(services: Mapping[str, Facts], store_url: str) -> Environment:
    """A deployment whose engine is Spark Connect; each process has its own."""
    facts = services["spark-connect-4.1"]
    route = ConnectRoute(facts["url"], "spark_test")
    extra = {
        "catalog_kind": "rest",
        "uri": services["rest"]["uri"],
        "properties": file_io_properties(services["s3"]),
    }
    policy = {"name": "all", "tablePattern": "*.*.*", "engine": "spark", "rewriteDataFiles": {}}
    return Environment(
        store=open_store(store_url),
        policies=(Policy.model_validate(policy),),
        catalogs={"prod": connect(ConnectionFields("prod", extra=extra))},
        engines={"spark": SparkEngine(route, {"prod": facts["catalog"]})},
        settings=Settings(lease_seconds=5, lease_wait_seconds=120),
    )


def rewrite(env: Environment, namespace: str, *, try_number: int = 1) -> RunResult:
    """A run over the table ``t``, as a try of a task."""
    return run(
        env,
        RunRequest(
            run_id="conf",
            mode=RunMode.TABLE_CONF,
            table=TableId.of(TableRef("prod", (namespace,), "t")),
            operations=(Operation.REWRITE_DATA_FILES,),
            context={"dag_id": "d", "run_id": "conf", "task_id": "t", "map_index": -1, "try_number": try_number},
        ),
    )


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    rewrite(environment(arguments["services"], arguments["store"]), arguments["namespace"])
