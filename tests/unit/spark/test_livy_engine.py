"""A worker that dies at any point of submitting a batch to Livy: the batch is found, or can do nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness.tables import FakeContext, context_for, lake, small_files
from livy_in_memory import Memory
from pyiceberg.table import Table

from airflow_provider_floe.engines.base import JobState, OperationRequest, OperationResult, RemoteJob
from airflow_provider_floe.engines.spark import livy as module
from airflow_provider_floe.engines.spark.files import JobFiles
from airflow_provider_floe.engines.spark.livy import LivyAccess, LivyEngine
from airflow_provider_floe.engines.spark.livy_server import LivyServer
from airflow_provider_floe.errors import EngineUnavailable, LeaseLost
from airflow_provider_floe.policies.model import RewriteDataFiles
from airflow_provider_floe.tables import Operation, TableRef

TABLE = TableRef("prod", ("db",), "events")
REQUEST = OperationRequest("op-1", TABLE, Operation.REWRITE_DATA_FILES, RewriteDataFiles())


class Killed(BaseException):
    """What SIGKILL does: nothing that this process would do afterwards happens."""


@dataclass(frozen=True)
class OneTable:
    table: Table

    def load(self, table: TableRef) -> Table:
        return self.table.refresh()

    def some(self, catalog: str) -> Iterator[Table]:
        yield self.table


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    return Memory()


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return small_files(lake(tmp_path), 3)


def engine(memory: Memory, table: Table) -> LivyEngine:
    catalogs = {"prod": "lake"}
    return LivyEngine(LivyAccess(LivyServer(memory, "c"), "job.py", {}, OneTable(table), catalogs), catalogs)


def killed_when(monkeypatch: pytest.MonkeyPatch, memory: Memory, context: FakeContext, point: str) -> None:
    def kill(*_: Any) -> None:
        raise Killed

    match point:
        case "committing":
            context.on_committing = kill
        case "leash":
            monkeypatch.setattr(JobFiles, "renew_leash", kill)
        case "request":
            monkeypatch.setattr(JobFiles, "write_request", kill)
        case "before it arrives":
            memory.before = lambda method, path: kill() if method == "POST" else None
        case "before the answer":
            memory.lose, memory.loss = ("POST",), Killed()
    monkeypatch.setattr(LivyEngine, "_undo", lambda *_: None)


@pytest.mark.parametrize("point", ["committing", "leash", "request", "before it arrives", "before the answer"])
def test_after_a_death_the_batch_is_found_or_can_do_nothing(
    memory: Memory, table: Table, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    context = context_for(table)
    with monkeypatch.context() as patched:
        killed_when(patched, memory, context, point)
        with pytest.raises(Killed):
            engine(memory, table).submit(REQUEST, context)
        memory.before, memory.lose = (lambda method, path: None), ()
    (job,) = context.jobs.values()

    next_try = engine(memory, table)
    status = next_try.poll(job)

    if point == "before the answer":
        assert (status.state, status.job.state["batch"]) == (JobState.RUNNING, 0)
    else:
        assert status.state is JobState.GONE
        assert not JobFiles(table, "op-1").sent()
        assert not memory.batches
    assert next_try.cancel(job.id)
    assert next_try.poll(job).state is JobState.GONE
    assert not JobFiles(table, "op-1").sent()
    assert not memory.batches


def submitted(memory: Memory, table: Table) -> tuple[LivyEngine, RemoteJob]:
    one = engine(memory, table)
    job = one.submit(REQUEST, context_for(table))
    assert not isinstance(job, OperationResult)
    return one, job


def test_a_task_that_lost_its_lease_takes_its_batch_back(memory: Memory, table: Table) -> None:
    class Lost(FakeContext):
        def remote_job(self, job_id: str, **told: Any) -> None:
            if memory.batches:
                raise LeaseLost("another run has the table")
            super().remote_job(job_id, **told)

    with pytest.raises(LeaseLost):
        engine(memory, table).submit(REQUEST, Lost(table.refresh))
    assert not memory.batches
    assert not JobFiles(table, "op-1").sent()


def test_a_batch_is_told_to_end_even_while_livy_does_not_answer(memory: Memory, table: Table) -> None:
    one, job = submitted(memory, table)
    memory.before = lambda method, path: (503, {})
    with pytest.raises(EngineUnavailable, match="HTTP 503"):
        one.cancel(job.id)
    assert not JobFiles(table, "op-1").sent()
    memory.before = lambda method, path: None
    assert one.cancel(job.id)
    assert not memory.batches
