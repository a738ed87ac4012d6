"""One operation on its way through Trino: the right table, a record of the query, and its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from airflow_provider_floe.engines.base import SUMMARY_EVIDENCE, OperationContext, OperationRequest
from airflow_provider_floe.engines.trino import sql
from airflow_provider_floe.engines.trino.failures import ConnectionLost
from airflow_provider_floe.engines.trino.session import Done, Session
from airflow_provider_floe.errors import (
    CommitConflict,
    CommitOutcomeUnknown,
    ConfigurationError,
    EngineFailed,
    EngineUnavailable,
    FloeError,
    OperationCancelled,
    UnsafeOperation,
)

QUERY_ID = "trino_query_id"
"""Snapshot summary property that Trino writes."""

_LOOKS = 3
_LOOKS_AFTER_LOSS = 5
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """One operation.

    :ivar catalog: Trino's name of the table's catalog.
    :ivar minimum_retention: the least that the server takes for this operation.
    :ivar understood: the calls and session properties that the server has, of those that differ between versions.
    :ivar clock_tolerance: how far the server's clock and ours may differ.
    """

    request: OperationRequest
    context: OperationContext
    session: Session
    catalog: str
    minimum_retention: timedelta
    understood: frozenset[str]
    clock_tolerance: timedelta

    @property
    def table_sql(self) -> str:
        """The table's name, for statements."""
        return sql.table_name(self.catalog, self.request.table)

    def load_table(self) -> Table:
        """The table, which is known to be the one that Trino sees under its name.

        :raises ConfigurationError: when Trino sees another one there.
        """
        log_entries = sql.table_name(self.catalog, self.request.table, "metadata_log_entries")
        for _ in range(_LOOKS):  # a commit may come between the two looks
            table = self.context.load_table()
            location = sql.text(table.metadata_location)
            if self.session.rows(f"SELECT 1 FROM {log_entries} WHERE file = {location}"):
                return table
        raise ConfigurationError(
            f"{self.table_sql} on Trino is another table than {self.request.table}: {table.metadata_location} is not "
            f"among its metadata. Correct floe_catalogs in the extra of connection {self.session.connection!r}"
        )

    def retention_threshold(self, older_than: datetime) -> tuple[timedelta, datetime]:
        """The age, by the server's clock, that makes it spare everything younger than a moment.

        Never below the server's minimum retention: then it spares more.

        :returns: the age, and the moment that the server takes it for.
        :raises UnsafeOperation: when the server's clock and ours differ too much to speak of ages.
        """
        # Read between two looks at our own clock: a slow answer is no difference
        before = self.context.now()
        server = datetime.fromtimestamp(float(self.session.rows("SELECT to_unixtime(current_timestamp)")[0][0]), UTC)
        difference = max(before - server, server - self.context.now())
        if difference > self.clock_tolerance:
            raise UnsafeOperation(
                f"the clocks of Trino ({server:%Y-%m-%d %H:%M:%S} UTC) and of this worker ({before:%Y-%m-%d %H:%M:%S} "
                "UTC) differ too much to delete anything by age: set them right"
            )
        threshold = max(server - older_than, self.minimum_retention, timedelta(0))
        return threshold, server - threshold

    def execute(
        self,
        call: str,
        where: str = "",
        detail: Mapping[str, Any] | None = None,
        happened: Callable[[Table, str], bool] | None = None,
    ) -> Done:
        """Run a table procedure to its end, on record from its start, and cancelled when the context says so.

        :param detail: what the operation record keeps until the procedure has ended.
        :param happened: whether the table shows that the query, of this id, committed although it failed; default:
            by the id that Trino puts on snapshots.
        :raises CommitOutcomeUnknown: when the connection was lost, and Trino cannot be asked what became of the query.
        """
        statement = f"ALTER TABLE {self.table_sql} EXECUTE {call}{where}\n-- floe operation {self.request.operation_id}"
        happened = happened or (lambda table, query_id: bool(snapshots_of(table, query_id)))
        query_id = ""

        def submitted(found: str) -> None:
            nonlocal query_id
            query_id = found
            self.context.remote_job(found)
            self.context.committing({**(detail or {}), SUMMARY_EVIDENCE: {QUERY_ID: found}})

        def waiting(statistics: dict[str, Any]) -> None:
            self.context.checkpoint()
            done, total = int(statistics.get("completedSplits", 0)), int(statistics.get("totalSplits", 0))
            self.context.progress(done, total, f"splits of query {query_id}")

        self.context.checkpoint()
        try:
            return self.session.run(statement, submitted=submitted, waiting=waiting)
        except ConnectionLost as error:
            if not query_id:
                raise
            return self._after_loss(query_id, error, happened)
        except (CommitConflict, EngineFailed, EngineUnavailable, OperationCancelled):
            # A commit may have happened all the same: its answer got lost, or it was faster than our cancelling
            if query_id and happened(self.context.load_table(), query_id):
                return Done(query_id, [], None)
            raise

    def _after_loss(self, query_id: str, error: FloeError, happened: Callable[[Table, str], bool]) -> Done:
        """Ask anew what became of a query; one that still runs is cancelled, since nobody fetches its result."""
        state = None
        for look in range(_LOOKS_AFTER_LOSS):
            try:
                over = self.session.cancel(query_id)
                state = self.session.state(query_id)
                break
            except FloeError:
                over = False
                time.sleep(_PAUSE_SECONDS * 2**look)
        if not over:
            raise CommitOutcomeUnknown(
                f"the connection {self.session.connection!r} to Trino was lost while query {query_id} ran, and it "
                f"cannot be asked what became of it: {error}"
            ) from error
        if state == "FINISHED" or happened(self.context.load_table(), query_id):
            return Done(query_id, [], None)
        raise EngineUnavailable(
            f"the connection {self.session.connection!r} to Trino was lost, and no commit of query {query_id} is in "
            f"the table: {error}"
        ) from error


def snapshots_of(table: Table, query_id: str) -> list[Snapshot]:
    """The snapshots that a query committed, in order."""
    return [s for s in table.metadata.snapshots if summary(s).get(QUERY_ID) == query_id]


def summary(snapshot: Snapshot) -> dict[str, str]:
    """The summary's properties."""
    return dict(snapshot.summary.additional_properties) if snapshot.summary else {}
