"""An engine elsewhere, in memory, whose jobs end when a test says so. For what dies between us and an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import uuid4

from airflow_provider_floe.engines.base import (
    SUMMARY_EVIDENCE,
    JobState,
    JobStatus,
    OperationContext,
    OperationRequest,
    OperationResult,
    RemoteJob,
)
from airflow_provider_floe.engines.capabilities import Capabilities
from airflow_provider_floe.engines.local.engine import LocalEngine
from airflow_provider_floe.engines.remote import carry_out
from airflow_provider_floe.errors import EngineFailed, EngineUnavailable

QUERY = "test_job"
"""Summary property of what a job commits."""


@dataclass
class Server:
    """What runs elsewhere, and outlives every process of ours.

    :ivar commit: what a job commits, with these summary properties.
    :ivar states: of every job that began.
    """

    commit: Callable[[dict[str, str]], object]
    states: dict[str, JobState] = field(default_factory=dict)
    answers: bool = True
    most_at_once: int = 0

    def begin(self, job_id: str) -> None:
        self.states.setdefault(job_id, JobState.RUNNING)
        running = sum(state is JobState.RUNNING for state in self.states.values())
        self.most_at_once = max(self.most_at_once, running)

    def finish(self, job_id: str) -> None:
        self.commit({QUERY: job_id})
        self.states[job_id] = JobState.FINISHED

    def fail(self, job_id: str) -> None:
        self.states[job_id] = JobState.FAILED


class ResumableElsewhere:
    """A client of the server; each process has its own."""

    name = "trino"

    def __init__(self, server: Server) -> None:
        self.server = server

    def probe(self) -> Capabilities:
        found = LocalEngine(memory_limit_bytes=2**28).probe()
        return found.model_copy(update={"engine": self.name})

    def execute(self, request: OperationRequest, context: OperationContext) -> OperationResult:
        return carry_out(self, request, context)

    def submit(self, request: OperationRequest, context: OperationContext) -> RemoteJob | OperationResult:
        before = context.load_table().metadata.current_snapshot_id
        job = RemoteJob(id=uuid4().hex, url=f"http://elsewhere/{request.operation_id}", state={"before": before})
        context.remote_job(job.id, url=job.url, state=job.state)
        context.committing({SUMMARY_EVIDENCE: {QUERY: job.id}})
        return job

    def poll(self, job: RemoteJob) -> JobStatus:
        if not self.server.answers:
            raise EngineUnavailable("it does not answer")
        self.server.begin(job.id)
        looked = {**job.state, "looks": job.state.get("looks", 0) + 1}
        return JobStatus(job=job.model_copy(update={"state": looked}), state=self.server.states[job.id], unit="steps")

    def collect(self, request: OperationRequest, context: OperationContext, status: JobStatus) -> OperationResult:
        made = [
            s for s in context.load_table().metadata.snapshots if s.summary and s.summary.get(QUERY) == status.job.id
        ]
        if not made:
            raise EngineFailed(f"job {status.job.id} failed")
        context.committed({"snapshot_id": made[-1].snapshot_id})
        return OperationResult(
            changed=True,
            message=f"done in {status.job.state['looks']} looks",
            snapshot_before=status.job.state["before"],
            snapshot_after=made[-1].snapshot_id,
        )

    def cancel(self, job_id: str) -> bool:
        if not self.server.answers:
            raise EngineUnavailable("it does not answer")
        if self.server.states.get(job_id) is JobState.RUNNING:
            self.server.fail(job_id)
        return True
