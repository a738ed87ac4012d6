"""One operation on its way through Trino: the right table, a query that is on record before it begins, and its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pyiceberg.serializers import FromInputFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from trino.exceptions import TrinoQueryError

from airflow_provider_floe.engines.base import (
    SUMMARY_EVIDENCE,
    JobState,
    JobStatus,
    OperationContext,
    OperationRequest,
    RemoteJob,
)
from airflow_provider_floe.engines.trino import sql
from airflow_provider_floe.engines.trino.failures import translate
from airflow_provider_floe.engines.trino.session import Session
from airflow_provider_floe.errors import ConfigurationError, EngineUnavailable, FloeError, UnsafeOperation

QUERY_ID = "trino_query_id"
"""Snapshot summary property that Trino writes."""

_LOOKS = 3


@dataclass(frozen=True)
class Job:
    """One operation.

    :ivar catalog: Trino's name of the table's catalog.
    """

    request: OperationRequest
    context: OperationContext
    session: Session
    catalog: str

    @property
    def table_sql(self) -> str:
        """The table's name, for statements."""
        return sql.table_name(self.catalog, self.request.table)


@dataclass(frozen=True)
class Submission(Job):
    """One that is to be sent.

    :ivar minimum_retention: the least that the server takes for this operation.
    :ivar understood: the calls and session properties that the server has, of those that differ between versions.
    :ivar clock_tolerance: how far the server's clock and ours may differ.
    """

    minimum_retention: timedelta
    understood: frozenset[str]
    clock_tolerance: timedelta

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

    def send(
        self,
        call: str,
        where: str = "",
        *,
        before: Table,
        facts: Mapping[str, Any],
        detail: Mapping[str, Any] | None = None,
    ) -> RemoteJob:
        """Have the server take a table procedure. It begins when it is asked about it for the first time.

        So the query is on record before it does anything, and one whose worker dies before that never runs.

        :param before: the table as it is now.
        :param facts: JSON; what is known now and needed when the procedure has ended.
        :param detail: what the operation record keeps as what is being committed.
        """
        return self.send_statement(
            f"ALTER TABLE {self.table_sql} EXECUTE {call}{where}", before=before, facts=facts, detail=detail
        )

    def send_statement(
        self, statement: str, *, before: Table, facts: Mapping[str, Any], detail: Mapping[str, Any] | None = None
    ) -> RemoteJob:
        """Have the server take a statement, as :meth:`send`."""
        self.context.checkpoint()
        answer = self.session.send(f"{statement}\n-- floe operation {self.request.operation_id}")
        if answer.error is not None:
            raise translate(TrinoQueryError(answer.error, answer.query_id), self.session.connection)
        state = {
            "next_uri": answer.next_uri,
            "sent_at": time.time(),
            "metadata_before": before.metadata_location,
            "facts": dict(facts),
        }
        job = RemoteJob(id=answer.query_id, url=answer.info_uri, state=state)
        self.context.remote_job(job.id, url=job.url, state=job.state)
        self.context.committing({**(detail or {}), SUMMARY_EVIDENCE: {QUERY_ID: job.id}})
        return job


@dataclass(frozen=True)
class Ended(Job):
    """One whose query is over.

    :ivar status: how it ended.
    """

    status: JobStatus

    @property
    def query_id(self) -> str:
        """Trino's id of the query."""
        return self.status.job.id

    @property
    def reported(self) -> dict[str, Any]:
        """The numbers that table procedures of newer servers return, by name."""
        return {str(row[0]): row[1] for row in self.status.job.state.get("rows", ()) if len(row) == 2}

    @property
    def facts(self) -> dict[str, Any]:
        """What :meth:`Submission.send` was given."""
        found: dict[str, Any] = self.status.job.state["facts"]
        return found

    @property
    def seconds(self) -> float:
        """Since the query was sent."""
        return max(0.0, time.time() - float(self.status.job.state["sent_at"]))

    @property
    def told(self) -> dict[str, Any]:
        """For the details of the result."""
        return {
            "query_id": self.query_id,
            "reported": self.reported,
            **({"info_uri": self.status.job.url} if self.status.job.url else {}),
        }

    def before(self, now: Table) -> Table:
        """The table as it was when the query was sent.

        :param now: the table as it is now.
        :raises UnsafeOperation: when its metadata file is gone.
        """
        location = str(self.status.job.state["metadata_before"])
        try:
            metadata = FromInputFile.table_metadata(now.io.new_input(location))
        except FileNotFoundError as error:
            raise UnsafeOperation(
                f"{location}, which describes {self.request.table} before query {self.query_id}, is gone, so what the "
                "query did cannot be verified: raise the table's write.metadata.previous-versions-max"
            ) from error
        return Table(now.name(), metadata, location, now.io, now.catalog)

    def require(self, happened: Callable[[Table], bool]) -> None:
        """Go on only if the query did its work.

        A commit may have happened although the query failed or is forgotten: the answer was lost, or the commit faster
        than a cancellation.

        :param happened: whether the table shows it.
        :raises FloeError: the query's own error, when it did not.
        """
        if self.status.state is JobState.FINISHED or happened(self.context.load_table()):
            return
        raise self._error()

    def _error(self) -> FloeError:
        error = self.status.job.state.get("error")
        if error is not None:
            return translate(TrinoQueryError(error, self.query_id), self.session.connection)
        return EngineUnavailable(
            f"Trino on connection {self.session.connection!r} does not know query {self.query_id} any more, as after a "
            f"restart, and no commit of it is in {self.request.table}"
        )


def snapshots_of(table: Table, query_id: str) -> list[Snapshot]:
    """The snapshots that a query committed, in order."""
    return [s for s in table.metadata.snapshots if summary(s).get(QUERY_ID) == query_id]


def summary(snapshot: Snapshot) -> dict[str, str]:
    """The summary's properties."""
    return dict(snapshot.summary.additional_properties) if snapshot.summary else {}
