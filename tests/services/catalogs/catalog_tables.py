"""What the tests of catalogs share: Floe's client, tables of small files, and a run as a DAG would make it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from harness.catalogs.base import NAME, Place, connection_fields
from harness.tables import SCHEMA, rows
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from airflow_provider_floe.catalogs.client import PyicebergCatalog, connect
from airflow_provider_floe.engines.base import Engine
from airflow_provider_floe.engines.local.engine import LocalEngine
from airflow_provider_floe.health.report import TableId
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.request import RunRequest, RunResult
from airflow_provider_floe.maintenance.run import run
from airflow_provider_floe.planning.model import RunMode
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.stores.open import open_store
from airflow_provider_floe.tables import Operation, TableRef

POLICY = {
    "name": "everything",
    "tablePattern": "*.*.*",
    "rewriteDataFiles": {},
    "rewriteManifests": {},
    "expireSnapshots": {"retainLast": 1, "maxSnapshotAge": "PT0.001S"},
    "orphanCleanup": {},
}


@dataclass(frozen=True)
class Lake:
    """Floe's client of a catalog, pyiceberg's catalog beneath, and a namespace of the test's own."""

    client: PyicebergCatalog
    catalog: Catalog
    namespace: str

    @classmethod
    def of(cls, place: Place, namespace: str) -> Lake:
        client = connect(connection_fields(place.connection))
        assert isinstance(client, PyicebergCatalog)
        return cls(client, client.catalog, namespace)

    def small_files(
        self, name: str = "events", files: int = 6, *, namespace: Sequence[str] = (), **properties: str
    ) -> Table:
        """A table of ``files`` small data files."""
        identifier = (*(namespace or (self.namespace,)), name)
        table = self.catalog.create_table(identifier, schema=SCHEMA, properties={"format-version": "2", **properties})
        for number in range(files):
            table.append(rows(number * 10, 10))
        return self.catalog.load_table(identifier)

    def environment(self, engines: Mapping[str, Engine] | None = None, **policy: Any) -> Environment:
        return Environment(
            store=open_store("memory://"),
            policies=(Policy.model_validate({**POLICY, **policy}),),
            catalogs={NAME: self.client},
            engines=engines or {"local": LocalEngine(memory_limit_bytes=256 * 1024**2)},
        )


def maintain(
    env: Environment, table: Table, *operations: Operation, force: bool = True, dry_run: bool = False
) -> RunResult:
    """A run over one table, as the DAG ``floe_maintenance`` makes it; the table is refreshed."""
    *namespace, name = table.name()
    try:
        return run(
            env,
            RunRequest(
                run_id=uuid4().hex,
                mode=RunMode.TABLE_CONF,
                table=TableId.of(TableRef(NAME, tuple(namespace), name)),
                operations=operations or None,
                force=force,
                dry_run=dry_run,
                context={},
            ),
        )
    finally:
        table.refresh()
