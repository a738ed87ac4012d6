"""What the tests of the Spark engine share: an engine on the harness's Spark, and operations as plans ask for them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from harness.services.base import Facts
from harness.tables import FakeContext, context_for
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.io import FileIO
from pyiceberg.table import Table

from airflow_provider_floe.engines.base import OperationRequest, OperationResult
from airflow_provider_floe.engines.spark.engine import SparkEngine
from airflow_provider_floe.engines.spark.process import SparkSubmit
from airflow_provider_floe.engines.spark.submit import SubmitRoute
from airflow_provider_floe.iceberg import listing, orphan_search
from airflow_provider_floe.iceberg.listing import ListedFile
from airflow_provider_floe.policies.model import OperationSettings
from airflow_provider_floe.tables import Operation, TableRef

CATALOG = "prod"
"""What policies call the catalog; Spark calls it otherwise."""


@dataclass(frozen=True)
class Spark:
    """A Spark to submit to, and pyiceberg's client of the catalog that it works on."""

    facts: Facts
    catalog: RestCatalog

    def submit(self, *arguments: str) -> SparkSubmit:
        """What starts spark-submit with one core; memory is bounded by the harness."""
        home, python = Path(self.facts["SPARK_HOME"]), Path(self.facts["PYSPARK_PYTHON"]).parent
        variables = {name: value for name, value in self.facts.items() if name.isupper()}
        return SparkSubmit(
            [str(home / "bin/spark-submit"), "--master", "local[1]", *arguments],
            environment={**variables, "PATH": f"{python}:{os.environ['PATH']}"},
            connection="spark_test",
        )

    def engine(
        self, *arguments: str, catalogs: Mapping[str, str] | None = None, leash_seconds: float = 60
    ) -> SparkEngine:
        route = SubmitRoute(self.submit(*arguments), "spark_test", leash_seconds=leash_seconds)
        return SparkEngine(route, catalogs or {CATALOG: self.facts["catalog"]})


def now_context(table: Table, *, days: float = 0, **fields: Any) -> FakeContext:
    """A context on the real clock's time, or so many days later."""
    return context_for(table, time=datetime.now(UTC) + timedelta(days=days), **fields)


def run(
    engine: SparkEngine,
    table: Table,
    settings: OperationSettings,
    context: FakeContext | None = None,
    *,
    operation_id: str | None = None,
) -> OperationResult:
    """Run the operation that the settings are of; the table is refreshed."""
    *namespace, name = table.name()
    ref = TableRef(CATALOG, tuple(namespace), name)
    operation = next(one for one in Operation if one.policy_key.lower() == type(settings).__name__.lower())
    request = OperationRequest(operation_id or uuid4().hex, ref, operation, settings)
    try:
        return engine.execute(request, context or now_context(table))
    finally:
        table.refresh()


def make_files_look_older(monkeypatch: pytest.MonkeyPatch, *, days: int) -> None:
    """Let storage tell an older age of files: neither the store nor Spark lets a test change the clock."""

    def older(io: FileIO, prefix: str) -> Iterator[list[ListedFile]]:
        for batch in listing.list_files(io, prefix):
            yield [file._replace(modified=file.modified and file.modified - timedelta(days=days)) for file in batch]

    monkeypatch.setattr(orphan_search, "list_files", older)
