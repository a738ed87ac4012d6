"""What the tests of the remote life cycle under a real Airflow share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from harness.airflow_standalone import Standalone, wait_until
from harness.services.brake import CommitBrake
from pyiceberg.catalog.rest import RestCatalog
from trino.dbapi import Connection

from airflow_provider_floe.stores.protocols import FloeStore, OperationRecord
from airflow_provider_floe.tables import TableRef

PATIENCE = 400.0
"""Seconds: a busy machine takes its time to start a task."""


@dataclass(frozen=True)
class Deployment:
    """A running Airflow whose policies' engines are a Trino, the commits of which can be held up, and a Spark.

    :ivar namespace: of the tables; each policy has one of its own name.
    """

    airflow: Standalone
    catalog: RestCatalog
    brake: CommitBrake
    connect_trino: Callable[[], Connection]
    store: FloeStore
    namespace: str

    def records(self, table: str) -> list[OperationRecord]:
        """Oldest first."""
        return self.store.operations(table=TableRef("lake", (self.namespace,), table))[::-1]

    def queries(self, operation_id: str) -> list[list[Any]]:
        """Id, state and error of every query that Trino knows of the operation."""
        with self.connect_trino() as connection:
            found: list[list[Any]] = (
                connection.cursor()
                .execute(
                    "SELECT query_id, state, error_code FROM system.runtime.queries "
                    f"WHERE query LIKE 'ALTER TABLE%floe operation {operation_id}' ORDER BY created"
                )
                .fetchall()
            )
            return found

    def execute_task(self, dag_id: str, run_id: str) -> str | None:
        """State of the only execute task."""
        tasks = [task for task in self.airflow.tasks(dag_id, run_id) if task["task_id"] == "execute"]
        return next((task["state"] for task in tasks if task["map_index"] == 0), None)

    def deferred_run(self, table: str) -> tuple[str, OperationRecord]:
        """Start the table's DAG, and wait until its query runs, all done but the commit, and its task is deferred."""
        dag_id, held = f"floe_policy_{table}", self.brake.held
        self.brake.hold()
        run_id = self.airflow.trigger(dag_id, {})
        wait_until("a held commit", lambda: self.brake.held > held, PATIENCE)
        wait_until("the deferred task", lambda: self.execute_task(dag_id, run_id) == "deferred", PATIENCE)
        (record,) = self.records(table)
        return run_id, record

    def wait_for_the_trigger(self, table: str) -> None:
        """Until the triggerer has asked about the table's job."""
        before = self.records(table)[-1].remote_state
        wait_until("a look by the trigger", lambda: self.records(table)[-1].remote_state != before, PATIENCE)

    def wait_for_query(self, operation_id: str, *expected: str | None) -> None:
        """Until Trino tells this state and error of the operation's only query."""
        wait_until(
            f"{expected} of {operation_id}",
            lambda: [tuple(row[1:]) for row in self.queries(operation_id)] == [expected],
            PATIENCE,
        )

    def task_path(self, dag_id: str, run_id: str) -> str:
        """Of the execute task, in Airflow's API."""
        return f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/execute"
