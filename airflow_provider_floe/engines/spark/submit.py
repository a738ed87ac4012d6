"""The route by spark-submit: the job is a process of its own, and reports through the table's storage."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from pyiceberg.table import Table

from airflow_provider_floe.engines.base import OperationContext
from airflow_provider_floe.engines.spark import job
from airflow_provider_floe.engines.spark.files import JobFiles
from airflow_provider_floe.engines.spark.outcome import cannot_load, translated
from airflow_provider_floe.engines.spark.process import application_name, end_processes
from airflow_provider_floe.errors import EngineUnavailable

log = logging.getLogger(__name__)

LEASH_SECONDS = 60.0
"""A job stops itself when its leash was not renewed for so long: less than a table's lease outlives its holder."""
_RENEW_SECONDS = 2.0
_STOPPING_SECONDS = 30.0
"""What a job takes to notice, and to end, on a machine that is very busy."""
_PROBE_SECONDS = 180.0


class Submission(Protocol):
    """One run of spark-submit."""

    @property
    def id(self) -> str:
        """The cluster's id of the application or driver where one is known, else host and process."""

    def wait(self, seconds: float) -> int | None:
        """The exit code once it is over, waiting at most so long; None while it runs."""

    def kill(self) -> None:
        """End the application, on the cluster too, and spark-submit."""


class Submitter(Protocol):
    """Runs spark-submit."""

    def __call__(
        self, application: Path, arguments: Sequence[str], *, files: Sequence[Path], name: str, here: bool = False
    ) -> Submission:
        """Start it.

        :param files: files that the driver needs, wherever it runs.
        :param name: the application's name, for people.
        :param here: the driver must run on this machine, whatever the deploy mode is otherwise.
        :raises EngineUnavailable: when spark-submit cannot be started.
        """


class SubmitRoute:
    """Runs the job of this package with spark-submit.

    :param submit: starts spark-submit.
    :param connection: names the connection in messages.
    :param leash_seconds: a job stops itself when nobody waited for it for so long.
    """

    name = "spark-submit"
    java = True

    def __init__(self, submit: Submitter, connection: str, *, leash_seconds: float = LEASH_SECONDS) -> None:
        self._submit = submit
        self._leash_seconds = leash_seconds
        self.connection = connection

    def job(self, request: Mapping[str, Any], context: OperationContext) -> SubmittedJob:
        """See :class:`~airflow_provider_floe.engines.spark.route.SparkRoute`."""
        return SubmittedJob(self._submit, self.connection, request, context.load_table(), self._leash_seconds)

    def cancel(self, job_id: str) -> bool:
        """Wait until a job that nobody waits for has stopped itself: that needs no way to its cluster.

        One that is still to begin does nothing when it does. What is left of spark-submit on this host is killed first.
        """
        end_processes(PurePosixPath(job_id).stem)
        seconds = self._leash_seconds + _STOPPING_SECONDS
        log.info("%s: no one waits for it; it stops itself within %.0f s", job_id, seconds)
        time.sleep(seconds)
        return True

    def probe(self, catalogs: Sequence[str], wanted: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
        """Run the job once, its driver on this machine."""
        with tempfile.TemporaryDirectory(prefix="floe-spark-") as folder:
            result = Path(folder, "probe.json")
            request = Path(folder, "request.json")
            request.write_text(json.dumps({"catalogs": list(catalogs), "probe": wanted, "result": str(result)}))
            submission = self._submit(
                Path(job.__file__), [str(request)], files=[request], name="floe: probe", here=True
            )
            until = time.monotonic() + _PROBE_SECONDS
            try:
                while (code := submission.wait(1.0)) is None:
                    if time.monotonic() > until:
                        raise EngineUnavailable(
                            f"Spark of connection {self.connection!r} did not answer within {_PROBE_SECONDS:.0f} s: "
                            "check that its master has room for an application"
                        )
            finally:
                submission.kill()
            if code or not result.exists():
                raise EngineUnavailable(
                    f"Spark of connection {self.connection!r} cannot be used: spark-submit ended with code {code}. "
                    f"Check the master and deploy mode of the connection, and that Spark has "
                    "Iceberg's runtime and SQL extensions; the task log has what spark-submit printed"
                )
            found: Mapping[str, Any] = json.loads(result.read_text())
            return found


class SubmittedJob:
    """A running job and the files by which it and we speak, below the table's location."""

    def __init__(
        self, submit: Submitter, connection: str, request: Mapping[str, Any], table: Table, leash_seconds: float
    ) -> None:
        self._submit = submit
        self._connection = connection
        self._request = request
        self._table = table
        self._leash_seconds = leash_seconds
        self._files = JobFiles(table, request["operation_id"])
        self.id = f"spark-submit:{self._files.leash}"
        self._renewals = 0
        self._renewed = 0.0
        self._folder = tempfile.TemporaryDirectory(prefix="floe-spark-")
        self._submission: Submission | None = None
        self._code: int | None = None

    def begin(self) -> None:
        """Write request and leash, and start spark-submit."""
        operation_id = self._request["operation_id"]
        path = Path(self._folder.name, f"{operation_id}.json")
        path.write_text(
            json.dumps(
                {
                    **self._request,
                    "leash": self._files.leash,
                    "leash_seconds": self._leash_seconds,
                    "result": self._files.result,
                }
            )
        )
        self.keep_alive()
        name = application_name(self._request["operation"], self._request["table"], operation_id)
        self._submission = self._submit(Path(job.__file__), [str(path)], files=[path], name=name)
        log.info("%s runs as %s", name, self._submission.id)

    def wait(self, seconds: float) -> bool:
        """Whether spark-submit is over."""
        if self._code is None and self._submission is not None:
            self._code = self._submission.wait(seconds)
        return self._code is not None

    def keep_alive(self) -> None:
        """Renew the leash, every two seconds: a job begins only when it sees that."""
        if self._renewals == 0 or time.monotonic() - self._renewed > _RENEW_SECONDS:
            self._renewals += 1
            self._renewed = time.monotonic()
            self._files.renew_leash(str(self._renewals))

    def stop(self) -> None:
        """Kill it, and tell the driver, should it not be reached that way."""
        try:
            self._files.tell_to_stop()
        finally:
            if self._submission is not None:
                self._submission.kill()

    def result(self) -> Mapping[str, Any]:
        """What the job wrote."""
        found = self._files.read_result()
        if found is None:
            raise self._failure()
        if "error" in found:
            raise translated(found["error"], self._connection)
        return found

    def clean_up(self) -> None:
        """Remove the files."""
        self._files.remove()
        self._folder.cleanup()

    def _failure(self) -> Exception:
        if self._code == job.NO_TABLE:
            return cannot_load(self._connection, self._request["table"])
        return EngineUnavailable(
            f"the job on Spark of connection {self._connection!r} ended with code {self._code} and left no result: "
            "check the master, its resources, and that Spark has Iceberg's runtime and SQL extensions; the task log "
            "has what spark-submit printed"
        )
