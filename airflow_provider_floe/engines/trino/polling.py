"""How a query stands, asked from any process."""

from __future__ import annotations

from typing import Any

from airflow_provider_floe.engines.base import JobState, JobStatus, RemoteJob
from airflow_provider_floe.engines.trino.session import OVER, Answer, Session, TokenConsumed


def poll(session: Session, job: RemoteJob) -> JobStatus:
    """Fetch what the server says next of a query.

    The answer's address for the next fetch is to be kept before that is made: the server answers the last fetch again,
    but none before it. Where another process has fetched further all the same, the server's list of queries tells.

    :raises FloeError: when the server does not answer.
    """
    try:
        answer = session.fetch(job.id, job.state["next_uri"])
    except TokenConsumed:
        return _looked_up(session, job)
    state = {**job.state, "next_uri": answer.next_uri}
    if answer.rows:
        state["rows"] = [*state.get("rows", ()), *answer.rows]
    if answer.error is not None:
        state |= {"over": JobState.FAILED.value, "error": answer.error}
    elif answer.next_uri is None:
        state["over"] = JobState.FINISHED.value
    return job_status(job.model_copy(update={"state": state}), answer)


def job_status(job: RemoteJob, answer: Answer | None = None) -> JobStatus:
    """What is known of a job, from the last answer or what was kept of it."""
    statistics: dict[str, Any] = answer.statistics if answer else {}
    state = JobState(job.state.get("over", JobState.RUNNING.value))
    error = job.state.get("error") or {}
    return JobStatus(
        job=job,
        state=state,
        done=int(statistics.get("completedSplits", 0)),
        total=int(statistics.get("totalSplits", 0)),
        unit="splits",
        message=str(error.get("message") or statistics.get("state") or state.value),
    )


def _looked_up(session: Session, job: RemoteJob) -> JobStatus:
    found = session.state(job.id)
    if found is None:
        return job_status(job.model_copy(update={"state": {**job.state, "over": JobState.GONE.value}}))
    name, error = found
    if name not in OVER:
        return JobStatus(job=job, state=JobState.RUNNING, message=name)
    over = JobState.FINISHED if name == "FINISHED" else JobState.FAILED
    state = {**job.state, "over": over.value, **({"error": error} if error else {})}
    return job_status(job.model_copy(update={"state": state}))
