"""How a request gets to Spark: what every route offers, and how a job is waited for and stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from airflow_provider_floe.engines.base import OperationContext

log = logging.getLogger(__name__)

_FIRST_POLL_SECONDS = 0.1
_POLL_SECONDS = 1.0
_STOP_SECONDS = 60.0


class SparkJob(Protocol):
    """One request that Spark is to carry out."""

    @property
    def id(self) -> str:
        """Names the job to whoever has to find it again; known before it begins."""

    def begin(self) -> None:
        """Send it.

        :raises EngineUnavailable: naming the connection and what to check.
        """

    def wait(self, seconds: float) -> bool:
        """Wait at most so long; True when it is over."""

    def keep_alive(self) -> None:
        """Say that someone still waits; called about once a second."""

    def stop(self) -> None:
        """Have it end. May return before it did, and may be called again."""

    def result(self) -> Mapping[str, Any]:
        """What the job says it did, once it is over.

        :raises EngineUnavailable: when Spark or the connection to it was lost.
        :raises FloeError: the job's own error, in our words.
        """

    def clean_up(self) -> None:
        """Remove what the job needed."""


class SparkAccess(Protocol):
    """A Spark that one can ask what it has."""

    @property
    def name(self) -> str:
        """What people call the way to it."""

    @property
    def connection(self) -> str:
        """Names the connection in messages."""

    @property
    def java(self) -> bool:
        """Whether the job gets at Iceberg's Java classes, and so at every action and at snapshot summaries."""

    def probe(self, catalogs: Sequence[str], wanted: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
        """See :func:`~airflow_provider_floe.engines.spark.job.probe` and ``probe_java``.

        :raises EngineUnavailable: naming the connection and what to check.
        """


class SparkRoute(SparkAccess, Protocol):
    """A way to Spark whose jobs last no longer than those who wait for them."""

    def job(self, request: Mapping[str, Any], context: OperationContext) -> SparkJob:
        """Prepare a job.

        :raises EngineUnavailable: naming the connection and what to check.
        """

    def cancel(self, job_id: str) -> bool:
        """End a job whose worker is gone; whether it is over then.

        :raises EngineUnavailable: when that cannot be found out.
        """


def run(
    route: SparkRoute, request: Mapping[str, Any], context: OperationContext, detail: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Carry out a request to its end; when the run is cancelled meanwhile, the job is stopped first.

    :param detail: for the record, right before Spark may commit.
    :raises FloeError: see :meth:`SparkJob.result`; or what :meth:`OperationContext.checkpoint` raises.
    """
    job = route.job(request, context)
    try:
        context.remote_job(job.id)
        context.committing(detail)
        job.begin()
        pause = _FIRST_POLL_SECONDS
        try:
            while not job.wait(pause):
                pause = min(2 * pause, _POLL_SECONDS)
                job.keep_alive()
                context.checkpoint()
        except BaseException:
            _stop(job)
            raise
        return job.result()
    finally:
        job.clean_up()


def _stop(job: SparkJob) -> None:
    until = time.monotonic() + _STOP_SECONDS
    while not job.wait(0):
        job.stop()
        if not job.wait(_POLL_SECONDS) and time.monotonic() > until:
            log.error("%s was told to stop and has not said that it did", job.id)
            return
    log.info("%s is over", job.id)
