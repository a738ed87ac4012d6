"""A job elsewhere outlives whoever sent it: it is gone on with, watched, cancelled or settled, and never sent twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from harness.elsewhere import ResumableElsewhere, Server
from harness.tables import lake, rows, small_files
from pyiceberg.table import Table

from airflow_provider_floe.catalogs.base import ConnectionFields
from airflow_provider_floe.catalogs.client import connect
from airflow_provider_floe.engines import remote
from airflow_provider_floe.engines.base import JobState
from airflow_provider_floe.errors import EngineUnavailable
from airflow_provider_floe.health.report import TableId
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.execute import execute
from airflow_provider_floe.maintenance.request import RunRequest, RunResult, Waiting
from airflow_provider_floe.maintenance.run import run
from airflow_provider_floe.maintenance.settings import Settings
from airflow_provider_floe.maintenance.verdict import verdict
from airflow_provider_floe.maintenance.watch import give_up, look
from airflow_provider_floe.planning.model import RunMode
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.stores.open import open_store
from airflow_provider_floe.stores.protocols import OperationRecord, OperationStatus
from airflow_provider_floe.tables import Operation, TableRef

EVENTS = TableRef("lake", ("db",), "events")
TASK = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1}


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return small_files(lake(tmp_path), 8)


@pytest.fixture
def server(table: Table) -> Server:
    def commit(summary: dict[str, str]) -> None:
        table.refresh()
        table.append(rows(10_000, 1), snapshot_properties=summary)

    return Server(commit)


@pytest.fixture
def env(tmp_path: Path, server: Server) -> Environment:
    extra = {"catalog_kind": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db"}
    document = {"name": "all", "tablePattern": "lake.db.*", "engine": "trino", "rewriteDataFiles": {}}
    return Environment(
        store=open_store(f"sqlite:///{tmp_path}/floe.db"),
        policies=(Policy.model_validate(document),),
        catalogs={"lake": connect(ConnectionFields("lake", extra=extra))},
        engines={"trino": ResumableElsewhere(server)},
        settings=Settings(lease_wait_seconds=30),
    )


def request(**context: Any) -> RunRequest:
    return RunRequest(
        run_id="run-1",
        mode=RunMode.TABLE_CONF,
        table=TableId.of(EVENTS),
        operations=(Operation.REWRITE_DATA_FILES,),
        context={**TASK, **context},
    )


def deferred(env: Environment) -> Waiting:
    """A run whose job goes on elsewhere."""
    found = run(env, request(), defer=True)
    assert found.waiting is not None
    return found.waiting


def lapse(env: Environment) -> None:
    """Let time go by until the table's lease is over."""
    if lease := env.store.lease(EVENTS):
        env.store.release(lease)


def the_record(env: Environment) -> OperationRecord:
    (record,) = env.store.operations(table=EVENTS)
    return record


class Killed(BaseException):
    """Stands for SIGKILL."""


class Dying:
    """A store whose process dies at the n-th call of one method: nothing of it reaches the store from then on."""

    def __init__(self, store: Any, method: str, number: int, *, after: bool) -> None:
        self._store = store
        self._at = method
        self._left = number
        self._after = after
        self._dead = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            if self._dead:
                raise Killed
            self._left -= name == self._at
            self._dead = self._left == 0
            if self._dead and not self._after:
                raise Killed
            answer = found(*arguments, **named)
            if self._dead:
                raise Killed
            return answer

        return call


def dead_engine_of(server: Server) -> ResumableElsewhere:
    """A client whose process is dead when it would cancel."""
    engine = ResumableElsewhere(server)
    engine.cancel = lambda _: False  # type: ignore[method-assign]
    return engine


@pytest.mark.parametrize("number", range(1, 7))
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_worker_that_dies_at_any_write_sends_no_second_job_beside_the_first(
    env: Environment, server: Server, number: int, after: bool
) -> None:
    ending = threading.Thread(target=finish_each, args=(server,), daemon=True)
    ending.start()
    dying = replace(
        env, store=Dying(env.store, "transition", number, after=after), engines={"trino": dead_engine_of(server)}
    )
    with suppress(Killed):
        run(dying, request(try_number=1))
    lapse(env)
    found = run(env, request(try_number=2))
    assert not found.verdict.failed, found.verdict.failures
    records = env.store.operations(table=EVENTS)
    done = [record for record in records if record.status is OperationStatus.SUCCESS]
    assert len(done) == 1
    assert list(server.states) == [done[0].remote_job], "one job ever"


def finish_each(server: Server) -> None:
    """Let every job end well, half a second after it began."""
    while True:
        for job_id, state in list(server.states.items()):
            if state is JobState.RUNNING:
                time.sleep(0.5)
                server.finish(job_id)
        time.sleep(0.02)


def test_the_next_try_waits_for_the_job_of_the_first(env: Environment, server: Server) -> None:
    first = deferred(env)
    threading.Timer(1.0, server.finish, [first.job_id]).start()
    found = run(env, request(try_number=2))
    (record,) = found.records
    assert (record.id, record.status) == (first.operation_id, OperationStatus.SUCCESS)
    assert (record.context["try_number"], record.remote_url) == (2, first.url)
    assert server.most_at_once == 1
    assert record.result is not None
    assert record.result.snapshot_before != record.result.snapshot_after


def test_a_job_that_failed_while_nobody_looked_is_sent_again_by_a_retry(env: Environment, server: Server) -> None:
    first = deferred(env)
    server.fail(first.job_id)
    second = run(env, request(try_number=2), defer=True).waiting
    assert second is not None
    assert second.job_id != first.job_id
    assert server.most_at_once == 1


def test_a_job_that_failed_while_it_was_watched_is_a_failure(env: Environment, server: Server) -> None:
    waiting = deferred(env)
    server.fail(waiting.job_id)
    assert look(env, waiting.operation_id, waiting.lease_token, deadline=None).over
    found = run(env, request(), resumed=waiting.operation_id)
    assert [record.status for record in found.records] == [OperationStatus.FAILED]
    assert found.verdict.failed


def test_a_watched_job_keeps_its_table_and_its_progress(env: Environment, server: Server, tmp_path: Path) -> None:
    waiting = deferred(env)
    before, began = the_record(env), env.store.lease(EVENTS)
    other = replace(
        env, store=open_store(f"sqlite:///{tmp_path}/floe.db"), engines={"trino": ResumableElsewhere(server)}
    )
    assert not look(other, waiting.operation_id, waiting.lease_token, deadline=None).over
    lease = env.store.lease(EVENTS)
    assert began is not None
    assert lease is not None
    assert (lease.token, lease.expires_at > began.expires_at) == (waiting.lease_token, True)
    assert the_record(env).remote_state["looks"] == before.remote_state["looks"] + 1
    server.finish(waiting.job_id)
    assert look(env, waiting.operation_id, waiting.lease_token, deadline=None).over
    found = run(env, request(), resumed=waiting.operation_id)
    assert [record.id for record in found.records] == [waiting.operation_id]
    assert not found.verdict.failed
    assert env.store.acquire(EVENTS, "the next run", timedelta(seconds=1)), "the lease is free"


def test_a_lease_that_ran_out_before_anybody_looked_is_taken_anew(env: Environment, server: Server) -> None:
    waiting = deferred(env)
    lapse(env)
    found = look(env, waiting.operation_id, waiting.lease_token, deadline=None)
    assert not found.over
    assert env.store.acquire(EVENTS, "somebody else", timedelta(seconds=1)) is None
    assert look(env, waiting.operation_id, waiting.lease_token, deadline=None).over, "who knows the old lease is late"
    assert not look(env, waiting.operation_id, found.lease_token, deadline=None).over


def test_a_run_of_another_plan_cancels_the_job_and_the_watch_ends(env: Environment, server: Server) -> None:
    waiting = deferred(env)
    lapse(env)
    threading.Thread(target=finish_second, args=(server,), daemon=True).start()
    other = run(env, request(task_id="another"))
    assert [record.status for record in other.records] == [OperationStatus.SUCCESS]
    assert server.states[waiting.job_id] is JobState.FAILED
    assert server.most_at_once == 1


def finish_second(server: Server) -> None:
    deadline = time.monotonic() + 60
    while len(server.states) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    server.finish(list(server.states)[1])


def test_a_job_past_its_deadline_is_cancelled(env: Environment, server: Server) -> None:
    waiting = deferred(env)
    found = look(env, waiting.operation_id, waiting.lease_token, deadline=env.now() - timedelta(seconds=1))
    assert found.over
    assert "past its deadline" in found.message
    assert server.states[waiting.job_id] is JobState.FAILED


def test_giving_up_cancels_the_job_and_frees_the_table(env: Environment, server: Server) -> None:
    waiting = deferred(env)
    give_up(env, waiting.operation_id, waiting.lease_token)
    assert server.states[waiting.job_id] is JobState.FAILED
    assert env.store.acquire(EVENTS, "the next run", timedelta(seconds=1))


def test_the_verdict_cancels_what_nobody_waits_for(env: Environment, server: Server) -> None:
    waiting = deferred(env)
    found = verdict(env, waiting.plan_id, None)
    assert found.failed
    assert server.states[waiting.job_id] is JobState.FAILED
    assert env.store.acquire(EVENTS, "the next run", timedelta(seconds=1))


def test_giving_up_what_the_next_try_waits_for_makes_that_begin_again(env: Environment, server: Server) -> None:
    waiting = deferred(env)
    found: list[RunResult] = []
    again = threading.Thread(target=lambda: found.append(run(env, request(try_number=2))))
    again.start()
    until(lambda: the_record(env).context.get("try_number") == 2)
    give_up(env, waiting.operation_id, waiting.lease_token)
    assert server.states[waiting.job_id] is JobState.FAILED
    finish_second(server)
    again.join(60)
    (record,) = found[0].records
    assert (record.status, [waiting.job_id, record.remote_job]) == (OperationStatus.SUCCESS, list(server.states))
    assert env.store.operation(waiting.operation_id).status is OperationStatus.INTERRUPTED
    assert server.most_at_once == 1


def test_an_engine_that_does_not_answer_leaves_everything_as_it_is(
    env: Environment, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", 0.2)
    waiting = deferred(env)
    server.answers = False
    with pytest.raises(EngineUnavailable):
        look(env, waiting.operation_id, waiting.lease_token, deadline=None)
    found = execute(env, waiting.plan_id, 0, context=TASK)
    assert [record.status for record in found.records] == [OperationStatus.UNKNOWN]
    server.answers = True
    server.finish(waiting.job_id)
    run(env, request(task_id="another"), defer=True)
    assert env.store.operation(waiting.operation_id).status is OperationStatus.SUCCESS
    assert server.most_at_once == 1


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
