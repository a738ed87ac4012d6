"""Runs the main job with engine Trino on one table: in a test, or as a process of its own that a test kills."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from harness.services.base import Facts
from harness.services.s3 import file_io_properties
from trino.dbapi import connect as connect_trino

from airflow_provider_floe.catalogs.base import ConnectionFields
from airflow_provider_floe.catalogs.client import connect
from airflow_provider_floe.engines.trino.engine import TrinoEngine
from airflow_provider_floe.health.report import TableId
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.request import RunRequest, RunResult
from airflow_provider_floe.maintenance.run import run
from airflow_provider_floe.maintenance.settings import Settings
from airflow_provider_floe.planning.model import RunMode
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.stores.open import open_store
from airflow_provider_floe.tables import Operation, TableRef


def environment(services: Mapping[str, Facts], store_url: str, trino_catalog: str) -> Environment:
    """A deployment whose engine is Trino; each process has its own."""
    trino = services["trino-476"]
    extra = {
        "catalog_kind": "rest",
        "uri": services["rest"]["uri"],
        "properties": file_io_properties(services["s3"]),
    }
    policy = {"name": "all", "tablePattern": "*.*.*", "engine": "trino", "rewriteDataFiles": {}}
    return Environment(
        store=open_store(store_url),
        policies=(Policy.model_validate(policy),),
        catalogs={"lake": connect(ConnectionFields("lake", extra=extra))},
        engines={
            "trino": TrinoEngine(
                lambda: connect_trino(trino["host"], int(trino["port"]), user="tester"), {"lake": trino_catalog}
            )
        },
        settings=Settings(lease_seconds=5, lease_wait_seconds=120),
    )


def rewrite(
    env: Environment, namespace: str, name: str, *, task: str = "maintain", try_number: int = 1, defer: bool = False
) -> RunResult:
    """A run over one table, as a try of a task."""
    request = RunRequest(
        run_id="conf",
        mode=RunMode.TABLE_CONF,
        table=TableId.of(TableRef("lake", (namespace,), name)),
        operations=(Operation.REWRITE_DATA_FILES,),
        context={"dag_id": "d", "run_id": "conf", "task_id": task, "map_index": -1, "try_number": try_number},
    )
    return run(env, request, defer=defer)


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    env = environment(arguments["services"], arguments["store"], arguments["catalog"])
    rewrite(env, arguments["namespace"], arguments["table"])
