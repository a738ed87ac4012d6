"""A task gives up its worker while a job runs elsewhere, and comes back when that is over."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from harness.elsewhere import ResumableElsewhere, Server
from harness.tables import rows

pytestmark = pytest.mark.usefixtures("airflow_db")


@pytest.fixture
def server(floe: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """What engine ``trino`` leads to, in the task and in the triggerer. Every job ends well after half a second."""
    from airflow_provider_floe import airflow_environment

    def commit(summary: dict[str, str]) -> None:
        floe.table().append(rows(10_000, 1), snapshot_properties=summary)

    server, over = Server(commit), threading.Event()

    def end_jobs() -> None:
        while not over.wait(0.05):
            for job_id in [job_id for job_id, state in server.states.items() if state == "running"]:
                time.sleep(0.5)
                server.finish(job_id)

    monkeypatch.setattr(airflow_environment, "open_engines", lambda _: {"trino": ResumableElsewhere(server)})
    thread = threading.Thread(target=end_jobs, daemon=True)
    thread.start()
    yield server
    over.set()
    thread.join()


def link(dag: Any, run: Any, task_id: str, name: str) -> str:
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        found = session.query(XComModel).filter_by(dag_id=dag.dag_id, run_id=run.run_id, task_id=task_id, key=name)
        return str(XComModel.deserialize_value(found.one()))


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_policy_dag_with_a_job_elsewhere(
    floe: Any, server: Server, run_dag: Callable[..., Any], capsys: pytest.CaptureFixture[str], deferrable: bool
) -> None:
    from airflow_provider_floe.dag_factory import FloePolicyDag

    floe.write("far", engine="trino", expireSnapshots=None)
    dag = FloePolicyDag("far", dag_id=f"far_{deferrable}", task_kwargs={"deferrable": deferrable})
    run = run_dag(dag)
    assert run.state == "success"
    (record,) = floe.store().operations()
    assert (record.status, [record.remote_job]) == ("SUCCESS", list(server.states))
    assert ("deferring while job" in capsys.readouterr().out) is deferrable
    assert link(dag, run, "execute", "_link_FloeJobLink") == record.remote_url
    assert link(dag, run, "execute", "_link_FloeRecordLink").endswith("/mapped/0/xcom")


def test_the_operator_defers_and_goes_on_with_its_plan(floe: Any, server: Server, run_dag: Callable[..., Any]) -> None:
    from airflow.sdk import DAG

    from airflow_provider_floe.operators.maintenance import FloeMaintenanceOperator

    floe.write("far", engine="trino", expireSnapshots=None)
    with DAG("far_table", schedule=None) as dag:
        FloeMaintenanceOperator(task_id="maintain", table="lake.db.events", deferrable=True)
    run = run_dag(dag)
    assert run.state == "success"
    (record,) = floe.store().operations()
    assert (record.status, list(server.states)) == ("SUCCESS", [record.remote_job])
    assert len(floe.store().plans()) == 1


def test_a_store_in_memory_is_not_left_behind(
    floe: Any, server: Server, run_dag: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from airflow.sdk import DAG

    from airflow_provider_floe.operators.maintenance import FloeMaintenanceOperator

    floe.set("AIRFLOW__FLOE__STORE_URL", "memory://")
    floe.write("far", engine="trino", expireSnapshots=None)
    with DAG("far_memory", schedule=None) as dag:
        FloeMaintenanceOperator(task_id="maintain", table="lake.db.events", deferrable=True)
    assert run_dag(dag).state == "success"
    assert "the Floe store is in memory, so this task waits" in capsys.readouterr().out
    assert list(server.states.values()) == ["finished"]


def test_the_configured_default_reaches_the_task_and_an_argument_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_floe.operators.execute import FloeExecuteOperator

    def deferrable(**arguments: Any) -> bool:
        return FloeExecuteOperator(task_id="t", plan_id="p", batch=0, **arguments).deferrable

    assert not deferrable()
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    assert deferrable()
    assert not deferrable(deferrable=False)


@pytest.mark.parametrize(("state", "left"), [("failed", "failed"), (None, "failed"), ("deferred", "running")])
def test_a_task_that_is_not_to_go_on_takes_its_job_along(
    floe: Any, monkeypatch: pytest.MonkeyPatch, state: str | None, left: str
) -> None:
    """It is still deferred when another triggerer takes over from one that Airflow thinks dead."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    from airflow_provider_floe import airflow_environment
    from airflow_provider_floe.health.report import TableId
    from airflow_provider_floe.maintenance.request import RunRequest
    from airflow_provider_floe.maintenance.run import run
    from airflow_provider_floe.planning.model import RunMode
    from airflow_provider_floe.policy_source import PolicySource
    from airflow_provider_floe.tables import TableRef
    from airflow_provider_floe.triggers.remote_job import FloeRemoteJobTrigger

    server = Server(lambda _: None)
    monkeypatch.setattr(airflow_environment, "open_engines", lambda _: {"trino": ResumableElsewhere(server)})
    path = floe.write("far", engine="trino", expireSnapshots=None)
    request = RunRequest(run_id="r", mode=RunMode.TABLE_CONF, table=TableId.of(TableRef("lake", ("db",), "events")))
    with airflow_environment.open_environment(PolicySource(path=path).load()) as (env, _):
        waiting = run(env, request, defer=True).waiting
    assert waiting is not None
    trigger = FloeRemoteJobTrigger(operation_id=waiting.operation_id, lease_token=waiting.lease_token)
    trigger._task_instance = SimpleNamespace(dag_id="d", map_index=-1, task_id="t", run_id="r")
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", lambda **_: {"r": {"t": state}})
    asyncio.run(trigger.on_kill())
    assert server.states == {waiting.job_id: left}


def test_a_cancellation_comes_through_a_look_with_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the message Airflow tells a user's action, after which it calls ``on_kill``, from a restart."""
    from airflow_provider_floe.triggers.remote_job import FloeRemoteJobTrigger

    looking, go_on = threading.Event(), threading.Event()

    def look(_: FloeRemoteJobTrigger) -> None:
        looking.set()
        assert go_on.wait(60)

    monkeypatch.setattr(FloeRemoteJobTrigger, "_look", look)

    async def watch() -> None:
        async for _ in FloeRemoteJobTrigger(operation_id="o", lease_token="l").run():
            pass

    async def cancelled() -> tuple[Any, ...]:
        watching = asyncio.create_task(watch())
        while not looking.is_set():
            await asyncio.sleep(0.01)
        watching.cancel("user-action")
        try:
            await watching
        except asyncio.CancelledError as error:
            return error.args
        finally:
            go_on.set()
        return ()

    assert asyncio.run(cancelled()) == ("user-action",)


def test_the_trigger_can_be_made_anew_from_what_it_tells() -> None:
    from airflow_provider_floe.triggers.remote_job import FloeRemoteJobTrigger

    trigger = FloeRemoteJobTrigger(
        operation_id="o", lease_token="l", deadline="2030-01-01T00:00:00+00:00", catalog_conn_id="c", store_conn_id="s"
    )
    path, arguments = trigger.serialize()
    module, _, name = path.rpartition(".")
    assert getattr(import_module(module), name)(**arguments).serialize() == (path, arguments)
