"""Runs an operation on an engine as a deployment does, by assess, plan and execute, and checks all that holds then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import conformance_state as states
import pytest
from conformance_lake import CATALOG, IN_ENGINES, Lake
from conformance_state import State, capture
from harness.services.running import use
from harness.services.s3 import file_io_properties
from harness.spark_sql import gateway_command
from pyiceberg.table import Table

from airflow_provider_floe.catalogs.base import ConnectionFields
from airflow_provider_floe.catalogs.client import connect
from airflow_provider_floe.engines.base import Engine
from airflow_provider_floe.engines.local.engine import LocalEngine
from airflow_provider_floe.health.report import TableId
from airflow_provider_floe.iceberg import listing, orphan_search
from airflow_provider_floe.iceberg.listing import ListedFile
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.request import RunRequest, RunResult
from airflow_provider_floe.maintenance.run import run
from airflow_provider_floe.planning.model import Disposition, PlanItem, RunMode
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.stores.open import open_store
from airflow_provider_floe.stores.protocols import OperationRecord, OperationStatus
from airflow_provider_floe.tables import Operation, TableRef

IN_FULL = ("local", "spark-3.5", "trino-476")
NEWER = ("spark-4.1", "trino-483")

REWRITE, DELETES = Operation.REWRITE_DATA_FILES, Operation.REWRITE_POSITION_DELETE_FILES
MANIFESTS, STATISTICS = Operation.REWRITE_MANIFESTS, Operation.COMPUTE_TABLE_STATS
EXPIRE, ORPHANS = Operation.EXPIRE_SNAPSHOTS, Operation.REMOVE_ORPHAN_FILES


@contextmanager
def open_engine(name: str) -> Iterator[Engine]:
    """The engine on a server of the harness."""
    catalogs = {CATALOG: IN_ENGINES}
    if name == "local":
        yield LocalEngine(memory_limit_bytes=2**28)
        return
    kind, _, version = name.partition("-")
    if kind == "trino":
        from trino.dbapi import connect as connect_trino

        from airflow_provider_floe.engines.trino.engine import TrinoEngine

        with use("s3", "rest", name) as services:
            place = {"host": services[name]["host"], "port": int(services[name]["port"])}
            # Where a case moves our clock, the server's stays where it is
            yield TrinoEngine(
                lambda: connect_trino(**place, user="conformance"), catalogs, clock_tolerance=timedelta.max
            )
        return
    from airflow_provider_floe.engines.spark.connect import ConnectRoute
    from airflow_provider_floe.engines.spark.engine import SparkEngine
    from airflow_provider_floe.engines.spark.process import SparkSubmit
    from airflow_provider_floe.engines.spark.submit import SubmitRoute

    service = f"spark-gateway-{version}" if name == "spark-3.5" else f"spark-connect-{version}"
    with use("s3", "rest", service) as services:
        if name == "spark-3.5":
            command, variables = gateway_command(services[service])
            submit = SparkSubmit(command, environment=variables, connection="spark_test")
            yield SparkEngine(SubmitRoute(submit, "spark_test"), catalogs)
        else:
            yield SparkEngine(ConnectRoute(services[service]["url"], "spark_test"), catalogs)


@dataclass(frozen=True)
class Done:
    """What a run did to a table, once all that holds for every run of its kind has been checked."""

    before: State
    after: State
    record: OperationRecord

    @property
    def table(self) -> Table:
        return self.after.table

    @property
    def deleted(self) -> set[str]:
        """Files that are gone from storage."""
        return set(self.before.stored.keys() - self.after.stored.keys())


@dataclass
class Target:
    """One engine in one version, on the lake."""

    name: str
    engine: Engine
    lake: Lake
    monkeypatch: pytest.MonkeyPatch
    moved: timedelta = field(default=timedelta(0))

    def is_one_of(self, *names: str) -> bool:
        """Whether it is one of these versions, or of these engines."""
        return any(name in (self.name, self.engine.name) for name in names)

    def refused_feature(self, operation: Operation, *features: str) -> str | None:
        """The reason that the engine's capabilities give for refusing one of these features of tables, if any."""
        refused = self.engine.probe().operation(operation).refused_features
        return next((refused[feature] for feature in features if feature in refused), None)

    def look_later(self, days: float) -> None:
        """Let all files be so much older from now on.

        Spark refuses orphans that are younger than a day by its own clock, but takes their age from us: for it the
        listing tells another age. For the other engines our clock is moved.
        """
        if not self.is_one_of("spark"):
            self.moved = timedelta(days=days)
            return

        def older(io: Any, prefix: str) -> Iterator[list[ListedFile]]:
            for batch in listing.list_files(io, prefix):
                yield [file._replace(modified=file.modified and file.modified - timedelta(days=days)) for file in batch]

        self.monkeypatch.setattr(orphan_search, "list_files", older)

    def run(
        self, table: Table, documents: Mapping[Operation, Mapping[str, Any]], *, dry_run: bool = False
    ) -> RunResult:
        """A whole run over one table with a policy of these operations, in a deployment without any history."""
        document = {"name": "conformance", "tablePattern": "*", "engine": self.engine.name}
        settings = {operation.policy_key: dict(found) for operation, found in documents.items()}
        services = self.lake.services
        properties = {"uri": services["rest"]["uri"], "properties": file_io_properties(services["s3"])}
        fields = ConnectionFields(CATALOG, extra={"catalog_kind": "rest", "catalog_name": CATALOG, **properties})
        moved, store = self.moved, open_store("memory://")
        self.monkeypatch.setattr(store, "now", lambda: datetime.now(UTC) + moved)
        env = Environment(
            store=store,
            policies=(Policy.model_validate({**document, **settings}),),
            catalogs={CATALOG: connect(fields)},
            engines={self.engine.name: self.engine},
            now=lambda: datetime.now(UTC) + moved,
        )
        *namespace, name = table.name()
        request = RunRequest(
            run_id=uuid4().hex,
            mode=RunMode.TABLE_CONF,
            table=TableId.of(TableRef(CATALOG, tuple(namespace), name)),
            operations=tuple(documents),
            dry_run=dry_run,
            context={},
        )
        return run(env, request)

    def plan(self, table: Table, operation: Operation, settings: Mapping[str, Any]) -> PlanItem:
        """What would be done, by a plan that is not carried out."""
        found = self.run(table, {operation: settings}, dry_run=True)
        (item,) = (item for item in found.plan.items if item.operation is operation)
        return item

    def maintain(
        self,
        table: Table,
        operation: Operation,
        settings: Mapping[str, Any] | None = None,
        *,
        again: str = "no work",
        left_over: int = 0,
    ) -> Done:
        """Run the operation, which finds something to do, and check all that holds then whatever the case.

        :param again: the disposition of a plan made right afterwards.
        :param left_over: files that nothing needs any more, but that the engine leaves, and says so.
        """
        settings = settings or {}
        before = capture(self.lake, table)
        found = self.run(table, {operation: settings})
        assert not found.verdict.failed, found.verdict.failures
        (record,) = found.records or pytest.fail(f"nothing ran: {_of(found, operation).reasons}")
        assert record.status is OperationStatus.SUCCESS, record.error
        assert (record.engine, record.operation) == (self.engine.name, operation)
        assert (record.remote_job is None) == self.is_one_of("local")
        after = capture(self.lake, table)
        if operation is REWRITE:
            states.check_data_rewrite(before, after, record, settings)
        elif operation is DELETES:
            states.check_delete_rewrite(before, after, record)
        elif operation is MANIFESTS:
            states.check_manifest_rewrite(before, after, record)
        elif operation is STATISTICS:
            states.check_statistics(before, after, record)
        elif operation is EXPIRE:
            states.check_expiry(before, after, record, left_over)
        else:
            states.check_orphans(before, after, record)
        next_item = self.plan(table, operation, settings)
        assert next_item.disposition.value == again, next_item.reasons
        return Done(before, after, record)

    def nothing_to_do(self, table: Table, operation: Operation, settings: Mapping[str, Any] | None = None) -> None:
        """The plan finds no work, and says so."""
        before = capture(self.lake, table)
        found = self.run(table, {operation: settings or {}})
        assert _of(found, operation).disposition is Disposition.NO_WORK, _of(found, operation).reasons
        states.check_untouched(before, capture(self.lake, table))

    def changes_nothing(self, table: Table, operation: Operation, settings: Mapping[str, Any] | None = None) -> str:
        """The engine can do nothing of what the plan found, and the record, whose message is returned, says why."""
        before = capture(self.lake, table)
        found = self.run(table, {operation: settings or {}})
        (record,) = found.records
        assert record.status is OperationStatus.SUCCESS, record.error
        assert record.result is not None
        assert not record.result.changed
        states.check_untouched(before, capture(self.lake, table))
        return record.result.message

    def refuses(self, text: str, table: Table, operation: Operation, settings: Mapping[str, Any] | None = None) -> None:
        """The plan refuses it with a reason that holds the text, and nothing happens."""
        before = capture(self.lake, table)
        found = self.run(table, {operation: settings or {}})
        item = _of(found, operation)
        assert item.disposition is Disposition.REFUSED, (item.disposition, item.reasons, found.records)
        assert text in " ".join(item.reasons)
        states.check_untouched(before, capture(self.lake, table))

    def fails(
        self, text: str, table: Table, operation: Operation, settings: Mapping[str, Any] | None = None
    ) -> OperationRecord:
        """What only the engine can see ends the operation before it does anything, with a reason on record."""
        before = capture(self.lake, table)
        found = self.run(table, {operation: settings or {}})
        (record,) = found.records or pytest.fail(f"nothing ran: {_of(found, operation).reasons}")
        assert record.status is OperationStatus.FAILED, record
        assert text in (record.error or "")
        states.check_untouched(before, capture(self.lake, table))
        return record


def _of(found: RunResult, operation: Operation) -> PlanItem:
    (item,) = (item for item in found.plan.items if item.operation is operation)
    return item
