"""Carries a job of a resumable engine to its end: sends it, waits for it, collects; or cancels it."""

from __future__ import annotations

import logging
import time

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
    waiting = _Waiting(engine, context, job)
    try:
        status = waiting.to_its_end()
    except JobTakenOver:
        raise  # another run waits for it, or has cancelled it
    except OperationCancelled as error:
        stopped = waiting.stopped()
        if stopped is None:
            raise
        try:
            return engine.collect(request, context, stopped)
        except FloeError as told:
            log.info("%s", told)
            raise error from None
    except EngineUnavailable as error:
        stopped = waiting.stopped()
        if stopped is None:
            raise CommitOutcomeUnknown(
                f"what became of job {job.id} on {request.table} cannot be found out: the engine does not answer: "
                f"{error}"
            ) from error
        status = stopped
    except BaseException:
        waiting.stopped()
        raise
    return engine.collect(request, context, status)


class _Waiting:
    def __init__(self, engine: ResumableEngine, context: OperationContext, job: RemoteJob) -> None:
        self._engine = engine
        self._context = context
        self._job = job

    def to_its_end(self) -> JobStatus:
        began = time.monotonic()
        while True:
            self._context.checkpoint()
            status = self._patiently()
            self._keep(status.job)
            if status.total:
                self._context.progress(status.done, status.total, f"{status.unit} of job {status.job.id}")
            if status.state is not JobState.RUNNING:
                return status
            time.sleep(min(max((time.monotonic() - began) / _PACE, _FIRST_PAUSE), _PAUSE))

    def stopped(self) -> JobStatus | None:
        """The job cancelled, and how it ended then; None when it may still run."""
        try:
            if self._engine.cancel(self._job.id):
                status = self._engine.poll(self._job)
                return status if status.state is not JobState.RUNNING else None
        except FloeError as error:
            log.error("job %s may still run: %s", self._job.id, error)
        return None

    def _patiently(self) -> JobStatus:
        give_up, pause = time.monotonic() + PATIENCE_SECONDS, _FIRST_PAUSE
        while True:
            try:
                return self._engine.poll(self._job)
            except EngineUnavailable as error:
                if time.monotonic() >= give_up:
                    raise
                log.warning("job %s: asking again: %s", self._job.id, error)
            self._context.checkpoint()
            time.sleep(pause)
            pause = min(2 * pause, _PAUSE)

    def _keep(self, job: RemoteJob) -> None:
        if job != self._job:
            self._context.remote_job(job.id, url=job.url, state=job.state)
            self._job = job
