"""The Spark engine by way of Livy: each operation is a batch, which outlives the process that submitted it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol
from uuid import uuid4

from pyiceberg.table import Table

from airflow_provider_floe.engines.base import (
    JobState,
    JobStatus,
    OperationContext,
    OperationRequest,
    OperationResult,
    RemoteJob,
)
from airflow_provider_floe.engines.remote import carry_out
from airflow_provider_floe.engines.spark import job
from airflow_provider_floe.engines.spark.engine import SparkOperations
from airflow_provider_floe.engines.spark.files import JobFiles
from airflow_provider_floe.engines.spark.livy_server import Batch, LivyServer
from airflow_provider_floe.engines.spark.outcome import cannot_load, translated
from airflow_provider_floe.engines.spark.task import Begun
from airflow_provider_floe.errors import (
    CatalogUnavailable,
    ConfigurationError,
    EngineUnavailable,
    FloeError,
    LeaseLost,
    StoreUnavailable,
    TableNotFound,
)
from airflow_provider_floe.tables import TableRef

log = logging.getLogger(__name__)

_PROBE_SECONDS = 300.0
_PROBE_PAUSE = 1.0
_PROBE_TABLES = 10
"""So many tables of each catalog may serve to report what there is: Spark may not see some, others may vanish."""
_STOPPING_SECONDS = 12.0
"""What a job takes to notice that it was withdrawn, and to end."""
_GONE_SECONDS = 60.0


class LivyTables(Protocol):
    """The tables of the catalogs, by which a job on Livy and those who wait for it speak."""

    def load(self, table: TableRef) -> Table:
        """Load a table.

        :raises TableNotFound: or another of the catalog's errors.
        """

    def some(self, catalog: str) -> Iterator[Table]:
        """Tables of a catalog that can be loaded, by the name that policies use: of many namespaces first."""


class LivyAccess:
    """The Spark behind a Livy server.

    :param server: the server.
    :param job_file: where Livy and Spark find :mod:`~airflow_provider_floe.engines.spark.job`.
    :param batch: more fields of the batches, such as ``queue`` and ``conf``; they hold no secret.
    :param tables: to speak by.
    :param catalogs: Spark's names of the catalogs, by the names that policies use.
    """

    name = "Livy"
    java = True

    def __init__(
        self,
        server: LivyServer,
        job_file: str,
        batch: Mapping[str, Any],
        tables: LivyTables,
        catalogs: Mapping[str, str],
    ) -> None:
        self.server = server
        self.tables = tables
        self._job_file = job_file
        self._batch_fields = dict(batch)
        self._catalogs = catalogs

    @property
    def connection(self) -> str:
        """Names the connection in messages."""
        return self.server.connection

    def submit(self, name: str, pointer: Mapping[str, Any]) -> Batch:
        """Start a batch.

        :param pointer: says where the rest of the request is. Whoever may see Livy's batches sees it.
        """
        arguments = [json.dumps({**pointer, "version": job.version()})]
        return self.server.submit({**self._batch_fields, "file": self._job_file, "args": arguments, "name": name})

    def probe(self, catalogs: Sequence[str], wanted: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
        """Run the job once; it tells what there is in a file below the location of one of the catalogs' tables."""
        name = f"floe-probe-{uuid4().hex}"
        places = {
            (in_spark, *table.name()): JobFiles(table, name)
            for policies_name, in_spark in self._catalogs.items()
            for table, _ in zip(self.tables.some(policies_name), range(_PROBE_TABLES), strict=False)
        }
        if not places:
            raise ConfigurationError(
                f"there is no table in {', '.join(sorted(self._catalogs)) or 'any catalog'} by whose storage the Spark "
                f"of connection {self.connection!r} could report what it has: check [floe] catalogs, and "
                "floe_livy_probe_table in the extra of the connection"
            )
        pointer = {
            "catalogs": list(catalogs),
            "probe": wanted,
            "places": [{"table": list(table), "result": files.result} for table, files in places.items()],
        }
        try:
            batch = self._probed(self.submit(name, pointer))
            for files in places.values():
                if (found := files.read_result()) is not None:
                    return self.told(found)
            raise self.failure(batch, next(iter(places)))
        finally:
            for files in places.values():
                files.remove()

    def _probed(self, batch: Batch) -> Batch:
        until = time.monotonic() + _PROBE_SECONDS
        while batch.state is JobState.RUNNING:
            if time.monotonic() > until:
                self.server.delete(batch.id)
                raise EngineUnavailable(
                    f"Spark of connection {self.connection!r} did not answer within {_PROBE_SECONDS:.0f} s: batch "
                    f"{batch.id} was {batch.word}. Check that its cluster has room for an application"
                )
            time.sleep(_PROBE_PAUSE)
            batch = self.server.get(batch.id, batch.name) or batch
        return batch

    def told(self, found: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a job wrote.

        :raises FloeError: its error, in our words.
        """
        error = found.get("error")
        if error is None:
            return found
        if error["type"] == job.OUTDATED:
            raise ConfigurationError(
                f"connection {self.connection!r}: the file {self._job_file} (floe_livy_job_file in its extra) is of "
                f"another version of this package ({error['message']}, here it is {job.version()}): write it anew with "
                "`airflow floe spark-job-file`, and put it there"
            )
        raise translated(error, self.connection)

    def failure(self, batch: Batch, table: Sequence[str]) -> FloeError:
        """The error of a batch that ended without a result."""
        why = self.server.death(batch.id)
        if why.no_table:
            return cannot_load(self.connection, table)
        shown = f"{batch.word}, {why.exception}" if why.exception else batch.word
        return EngineUnavailable(
            f"batch {batch.id} on Livy of connection {self.connection!r} ended ({shown}) and left no result: check "
            f"that Livy and Spark can read {self._job_file} (floe_livy_job_file in the connection's extra), that the "
            f"cluster has room, and that Spark has Iceberg's runtime and SQL extensions. Its log: {batch.url}"
        )


class LivyEngine(SparkOperations):
    """Carries out operations with the procedures of Iceberg on a Spark behind Livy.

    A batch bears the operation id in its name, of which Livy has each but once. Its request lies below the table's
    location: a job whose request was withdrawn does nothing, and one that runs ends itself, wherever it is.

    :param access: to the Spark behind Livy.
    :param catalogs: Spark's names of the catalogs, by the names that policies use.
    """

    def __init__(self, access: LivyAccess, catalogs: Mapping[str, str]) -> None:
        super().__init__(access, catalogs)
        self._livy = access

    def execute(self, request: OperationRequest, context: OperationContext) -> OperationResult:
        """Run one operation to its end; see :class:`~airflow_provider_floe.engines.base.Engine`."""
        return carry_out(self, request, context)

    def submit(self, request: OperationRequest, context: OperationContext) -> RemoteJob | OperationResult:
        """See :class:`~airflow_provider_floe.engines.base.ResumableEngine`."""
        task = self._task(request, context)
        order = self._prepared(task)
        if isinstance(order, OperationResult):
            return order
        files = JobFiles(context.load_table(), request.operation_id)
        state = {"sent_at": time.time(), "begun": order.begun.model_dump(mode="json")}
        sent = RemoteJob(id=_job_id(request.operation_id, request.table), state=state)
        leash = {"leash": files.leash, "leash_seconds": None, "result": files.result}
        try:
            context.remote_job(sent.id, state=sent.state)
            context.committing(order.begun.detail)
            files.renew_leash("go on")
            files.write_request({**task.document(order), **leash})
            pointer = {"table": list(task.names), "request": files.request, "result": files.result}
            batch = self._livy.submit(_name(request.operation_id), pointer)
            log.info("%s on %s is batch %s on Livy: %s", request.operation, request.table, batch.id, batch.url)
            told = _seen(sent, batch)
            context.remote_job(told.id, url=told.url, state=told.state)
        except BaseException:
            self._undo(sent, files)
            raise
        return told

    def poll(self, job: RemoteJob) -> JobStatus:
        """See :class:`~airflow_provider_floe.engines.base.ResumableEngine`."""
        operation_id, table = _parsed(job.id)
        batch = self._livy.server.get(job.state.get("batch"), _name(operation_id))
        if batch is None:
            return self._forgotten(job, operation_id, table)
        seen = _seen(job, batch)
        if seen != job:
            log.info("batch %s on Livy is %s %s: %s", batch.id, batch.word, batch.application or "", batch.url)
        return JobStatus(job=seen, state=batch.state, message=batch.word)

    def collect(self, request: OperationRequest, context: OperationContext, status: JobStatus) -> OperationResult:
        """See :class:`~airflow_provider_floe.engines.base.ResumableEngine`."""
        task = self._task(request, context)
        files = JobFiles(context.load_table(), request.operation_id)
        begun = Begun.model_validate(status.job.state["begun"])
        try:
            result = self._reported(task, begun, lambda: self._told(files, status, task.names))
        except (LeaseLost, StoreUnavailable):
            raise  # whoever settles it may read what the job told
        except FloeError:
            files.remove()
            raise
        files.remove()
        return result.model_copy(update={"duration_seconds": time.time() - status.job.state["sent_at"]})

    def cancel(self, job_id: str) -> bool:
        """See :class:`~airflow_provider_floe.engines.base.RemoteEngine`."""
        operation_id, table = _parsed(job_id)
        files = self._files(table, operation_id)
        may_run = files is not None and files.sent() and files.read_result() is None
        if files is not None:
            files.withdraw()
        server, name = self._livy.server, _name(operation_id)
        batch = server.find(name)
        if batch is None and may_run:
            log.info("Livy knows no batch %s: it ends itself within %.0f s if it runs", name, _STOPPING_SECONDS)
            time.sleep(_STOPPING_SECONDS)
        if batch is None or batch.state is not JobState.RUNNING:
            return True
        server.delete(batch.id)
        until = time.monotonic() + _GONE_SECONDS
        while server.get(batch.id, name) is not None:
            if time.monotonic() > until:
                return False
            time.sleep(1.0)
        log.info("batch %s on Livy is gone", batch.id)
        return True

    def _forgotten(self, job: RemoteJob, operation_id: str, table: TableRef) -> JobStatus:
        """Livy forgets batches some time after their end, or when it is started anew: then they may still run."""
        files = self._files(table, operation_id)
        if files is None:
            return JobStatus(job=job, state=JobState.GONE, message="the table is gone")
        if files.read_result() is not None:
            return JobStatus(job=job, state=JobState.FINISHED, message="forgotten by Livy, but its result is there")
        since = job.state.get("withdrawn_at")
        if since is None and files.sent():
            files.withdraw()
            log.warning("Livy knows no batch of operation %s: it is told to end, if it runs", operation_id)
            if "batch" not in job.state:  # whoever was to submit it died about then
                time.sleep(_STOPPING_SECONDS)
                return JobStatus(job=job, state=JobState.GONE, message="Livy never had it")
            told = job.model_copy(update={"state": {**job.state, "withdrawn_at": time.time()}})
            return JobStatus(job=told, state=JobState.RUNNING, message="forgotten by Livy, told to end")
        if since is not None and time.time() < since + _STOPPING_SECONDS:
            return JobStatus(job=job, state=JobState.RUNNING, message="forgotten by Livy, told to end")
        return JobStatus(job=job, state=JobState.GONE, message="Livy knows it no more")

    def _told(self, files: JobFiles, status: JobStatus, table: Sequence[str]) -> Mapping[str, Any]:
        found = files.read_result()
        if found is not None:
            return self._livy.told(found)
        name = _name(_parsed(status.job.id)[0])
        batch = self._livy.server.get(status.job.state.get("batch"), name)
        if batch is not None:
            raise self._livy.failure(batch, table)
        raise EngineUnavailable(
            f"Livy of connection {self._livy.connection!r} has no batch {name} any more, and it left no result: it was "
            "deleted, or Livy was started anew (livy.server.recovery.mode lets it remember)"
        )

    def _undo(self, sent: RemoteJob, files: JobFiles) -> None:
        """What was sent, or may have been, does nothing without its request; what runs is ended."""
        try:
            files.remove()
            self.cancel(sent.id)
        except FloeError as error:
            log.error("%s: %s", sent.id, error)

    def _files(self, table: TableRef, operation_id: str) -> JobFiles | None:
        """The files of a job; None where its table is gone, so that it can do nothing."""
        try:
            return JobFiles(self._livy.tables.load(table), operation_id)
        except TableNotFound:
            return None
        except CatalogUnavailable as error:
            raise EngineUnavailable(f"what became of job {operation_id} cannot be found out: {error}") from error


def _seen(job: RemoteJob, batch: Batch) -> RemoteJob:
    state = {**job.state, "batch": batch.id, "application": batch.application, "state": batch.word}
    return job.model_copy(update={"url": batch.url, "state": state})


def _name(operation_id: str) -> str:
    return f"floe-{operation_id}"


def _job_id(operation_id: str, table: TableRef) -> str:
    return f"livy:{operation_id}:{table}"


def _parsed(job_id: str) -> tuple[str, TableRef]:
    _, operation_id, table = job_id.split(":", 2)
    return operation_id, TableRef.parse(table)
