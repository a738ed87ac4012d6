"""What the tests of the Livy route share: the engine on the harness's Livy, and what Livy and the machine say of it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

from harness.services.base import Facts
from harness.tables import FakeContext, context_for
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.table import Table

from airflow_provider_floe.airflow_spark import spark_engine
from airflow_provider_floe.engines.base import OperationRequest
from airflow_provider_floe.engines.spark.livy import LivyEngine
from airflow_provider_floe.policies.model import OperationSettings
from airflow_provider_floe.tables import Operation, TableRef

CATALOG = "prod"
"""What policies call the catalog; Spark calls it otherwise."""
LIVY = "livy_of_test"


@dataclass(frozen=True)
class Livy:
    """A Livy server, and pyiceberg's client of the catalog that its Spark works on.

    :ivar extra: of the connection to it.
    """

    facts: Facts
    catalog: RestCatalog
    extra: dict[str, Any]

    def engine(self, in_spark: str | None = None) -> LivyEngine:
        """As a task makes it, from the connection.

        :param in_spark: Spark's name of the catalog, where it is not the right one.
        """
        engine = spark_engine(LIVY, {CATALOG: in_spark or self.facts["catalog"]})
        assert isinstance(engine, LivyEngine)
        return engine

    def batches(self, operation_id: str) -> list[dict[str, Any]]:
        """What Livy itself tells of the batches of an operation."""
        with urllib.request.urlopen(f"{self.facts['url']}/batches?from=0&size=1000", timeout=60) as answer:
            sessions = json.load(answer)["sessions"]
        return [one for one in sessions if one["name"] == f"floe-{operation_id}"]


def applications(operation_id: str) -> list[int]:
    """The processes of an operation's Spark application."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"{operation_id}.request".encode() in command.read_bytes():
                found.append(int(command.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def wait_for(happened: Callable[[], Any], what: str, seconds: float = 420) -> Any:
    """What ``happened`` answers, once it answers something."""
    deadline = monotonic() + seconds
    while not (found := happened()):
        assert monotonic() < deadline, f"{what} did not happen within {seconds:.0f} s"
        sleep(0.05)
    return found


def now_context(table: Table, *, days: float = 0, **fields: Any) -> FakeContext:
    """A context on the real clock's time, or so many days later."""
    return context_for(table, time=datetime.now(UTC) + timedelta(days=days), **fields)


def request(table: Table, settings: OperationSettings, operation_id: str | None = None) -> OperationRequest:
    """The operation that the settings are of."""
    *namespace, name = table.name()
    operation = next(one for one in Operation if one.policy_key.lower() == type(settings).__name__.lower())
    return OperationRequest(operation_id or uuid4().hex, TableRef(CATALOG, tuple(namespace), name), operation, settings)
