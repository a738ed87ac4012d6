"""Executes a plan with engine spark on Livy: in a test, or as a process of its own that a test kills."""

from __future__ import annotations

import sys

from livy_spark import CATALOG, LIVY

from airflow_provider_floe.airflow_catalogs import open_catalogs
from airflow_provider_floe.airflow_spark import spark_engine
from airflow_provider_floe.config import catalog_conn_ids
from airflow_provider_floe.engines.base import Engine
from airflow_provider_floe.health.report import TableId
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.execute import execute
from airflow_provider_floe.maintenance.request import RunRequest
from airflow_provider_floe.maintenance.settings import Settings
from airflow_provider_floe.planning.model import RunMode
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.stores.open import open_store
from airflow_provider_floe.tables import Operation, TableRef

TASK = {"dag_id": "floe", "run_id": "one", "task_id": "maintain", "map_index": -1}


def environment(store_url: str, engine: Engine) -> Environment:
    """On the connections that the environment variables of this process give."""
    policy = {"name": "all", "tablePattern": "*.*.*", "engine": "spark", "rewriteDataFiles": {}}
    return Environment(
        store=open_store(store_url),
        policies=(Policy.model_validate(policy),),
        catalogs=open_catalogs(catalog_conn_ids()),
        engines={"spark": engine},
        settings=Settings(lease_seconds=5, lease_wait_seconds=120),
    )


def rewriting(namespace: str, name: str) -> RunRequest:
    """A run that rewrites the data files of one table."""
    return RunRequest(
        run_id="one",
        mode=RunMode.TABLE_CONF,
        table=TableId.of(TableRef(CATALOG, (namespace,), name)),
        operations=(Operation.REWRITE_DATA_FILES,),
    )


if __name__ == "__main__":
    store, in_spark, plan_id = sys.argv[1:]
    execute(environment(store, spark_engine(LIVY, {CATALOG: in_spark})), plan_id, 0, context=TASK)
