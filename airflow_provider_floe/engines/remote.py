"""Carries a job of a resumable engine to its end: sends it, waits for it, collects; or cancels it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import overload

from airflow_provider_floe.engines.base import (
    JobState,
    JobStatus,
    OperationContext,
    OperationRequest,
    OperationResult,
    RemoteJob,
    ResumableEngine,
)
from airflow_provider_floe.errors import (
    CommitOutcomeUnknown,
    EngineUnavailable,
    FloeError,
    JobTakenOver,
    OperationCancelled,
)

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 120.0
"""How long an engine may be silent about a job before we stop asking."""
_FIRST_PAUSE, _PAUSE = 0.05, 2.0
_PACE = 20
"""A job is asked about once in a twentieth of the time that it has taken so far."""


def carry_out(engine: ResumableEngine, request: OperationRequest, context: OperationContext) -> OperationResult:
    """An operation from beginning to end, in this process.

    :raises FloeError: as :meth:`~airflow_provider_floe.engines.base.Engine.execute`.
    """
    begun = engine.submit(request, context)
    return begun if isinstance(begun, OperationResult) else wait_and_collect(engine, request, context, begun)


def wait_and_collect(
    engine: ResumableEngine, request: OperationRequest, context: OperationContext, job: RemoteJob
) -> OperationResult:
    """What is left of an operation whose job is on its way, whoever has sent it.

    What :meth:`OperationContext.checkpoint` raises cancels the job, as do signals; a commit that was faster counts.

    :raises CommitOutcomeUnknown: when the engine cannot be asked what became of the job.
    :raises FloeError: see :meth:`~airflow_provider_floe.engines.base.ResumableEngine.collect`.
    """
    watched = _Watched(engine, request, context, job)
    return watched.collected(watched.until_over)


def look_and_collect(
    engine: ResumableEngine, request: OperationRequest, context: OperationContext, job: RemoteJob
) -> OperationResult | None:
    """The same, without waiting; None while the job is on its way, which one look has set going at the latest.

    :raises FloeError: as :func:`wait_and_collect`.
    """
    watched = _Watched(engine, request, context, job)
    return watched.collected(watched.at_once)


class _Watched:
    def __init__(
        self, engine: ResumableEngine, request: OperationRequest, context: OperationContext, job: RemoteJob
    ) -> None:
        self._engine = engine
        self._request = request
        self._context = context
        self._job = job

    @overload
    def collected(self, watch: Callable[[], JobStatus]) -> OperationResult: ...

    @overload
    def collected(self, watch: Callable[[], JobStatus | None]) -> OperationResult | None: ...

    def collected(self, watch: Callable[[], JobStatus | None]) -> OperationResult | None:
        """What the job did, once it is over; None where the watch ends before."""
        try:
            status = watch()
        except JobTakenOver:
            raise  # another run waits for it, or has cancelled it
        except OperationCancelled as error:
            stopped = self._stopped(error)
            try:
                return self._engine.collect(self._request, self._context, stopped)
            except FloeError as told:
                log.info("%s", told)
                raise error from None
        except EngineUnavailable as error:
            status = self._stopped(error)
        except BaseException as error:
            try:
                self._stopped(error)
            except CommitOutcomeUnknown as unknown:
                log.error("%s", unknown)
            raise
        return None if status is None else self._engine.collect(self._request, self._context, status)

    def until_over(self) -> JobStatus:
        began = time.monotonic()
        while True:
            self._context.checkpoint()
            status = self._patiently()
            if status.state is not JobState.RUNNING:
                return status
            time.sleep(min(max((time.monotonic() - began) / _PACE, _FIRST_PAUSE), _PAUSE))

    def at_once(self) -> JobStatus | None:
        self._context.checkpoint()
        status = self._patiently()
        return None if status.state is JobState.RUNNING else status

    def _patiently(self) -> JobStatus:
        """One look; an engine that does not answer is asked again for a while."""
        give_up, pause = time.monotonic() + PATIENCE_SECONDS, _FIRST_PAUSE
        while True:
            try:
                status = self._engine.poll(self._job)
                break
            except EngineUnavailable as error:
                if time.monotonic() >= give_up:
                    raise
                log.warning("job %s: asking again: %s", self._job.id, error)
            self._context.checkpoint()
            time.sleep(pause)
            pause = min(2 * pause, _PAUSE)
        if status.job != self._job:
            self._context.remote_job(status.job.id, url=status.job.url, state=status.job.state)
            self._job = status.job
        if status.total:
            self._context.progress(status.done, status.total, f"{status.unit} of job {status.job.id}")
        return status

    def _stopped(self, why: BaseException) -> JobStatus:
        """The job cancelled, and how it ended then.

        :raises CommitOutcomeUnknown: when it may still run.
        """
        told = "it was told to stop and has not"
        try:
            if self._engine.cancel(self._job.id):
                status = self._engine.poll(self._job)
                if status.state is not JobState.RUNNING:
                    return status
        except FloeError as error:
            told = str(error)
        raise CommitOutcomeUnknown(
            f"job {self._job.id} on {self._request.table} was to be cancelled ({type(why).__name__}: {why}), and may "
            f"still run: {told}"
        ) from why
