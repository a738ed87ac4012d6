"""Policy DAGs, run by Airflow in this process on a real table."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from airflow import __version__ as airflow_version
from airflow.sdk import DAG, BaseOperator
from dag_runs import states
from harness.tables import data_files, rows_digest, small_files
from packaging.version import Version

from airflow_provider_floe.dag_factory import FloePolicyDag, FloeTaskGroup
from airflow_provider_floe.errors import ConfigurationError, InvalidPolicy, PolicyNotFound
from airflow_provider_floe.tables import Operation


class Load(BaseOperator):
    """A task of the user's own.

    :param good: whether it succeeds.
    """

    def __init__(self, *, good: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.good = good

    def execute(self, context):
        if not self.good:
            raise RuntimeError("no data came")


ALL_GREEN = {"assess": ["success"], "plan": ["success"], "execute": ["success"], "verdict": ["success"]}


def test_it_maintains_the_tables_of_its_policy_and_the_next_run_finds_nothing(floe, run_dag):
    floe.write("compact")
    before = rows_digest(floe.table())
    run = run_dag(FloePolicyDag("compact"))
    assert run.state == "success"
    assert states(run) == ALL_GREEN
    assert len(data_files(floe.table())) == 1
    assert rows_digest(floe.table()) == before
    snapshot = floe.table().metadata.current_snapshot_id
    [record] = floe.store().operations(operation=Operation.REWRITE_DATA_FILES)
    assert record.status == "SUCCESS"
    assert (record.policy, record.context["dag_id"], record.context["task_id"]) == (
        "compact",
        "floe_policy_compact",
        "execute",
    )

    again = run_dag(FloePolicyDag("compact"))
    assert again.state == "success"
    assert states(again) == {**ALL_GREEN, "execute": ["skipped"]}
    assert floe.table().metadata.current_snapshot_id == snapshot


def test_every_decision_stands_in_the_plan_tasks_log(floe, run_dag, caplog):
    floe.write("compact")
    run_dag(FloePolicyDag("compact"))
    log = caplog.text
    assert "rewrite_data_files: run on local" in log
    assert "8 of 8 data files" in log
    assert "governed by compact because its pattern 'lake.db.*' matches" in log


def test_a_changed_table_has_an_asset_event(floe, run_dag):
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session

    def events(run):
        with create_session() as session:
            found = session.query(AssetEvent).filter(AssetEvent.source_run_id == run.run_id).all()
            return [(event.asset.uri, event.extra) for event in found]

    floe.write("compact", expireSnapshots=None)
    [(uri, extra)] = events(run_dag(FloePolicyDag("compact")))
    [record] = floe.store().operations()
    assert uri == "floe://lake/db/events"
    assert extra["operations"] == [f"rewrite_data_files {record.id}"]
    assert events(run_dag(FloePolicyDag("compact"))) == []


def test_without_events_there_are_no_asset_events(floe):
    floe.set("AIRFLOW__FLOE__EMIT_EVENTS", "False")
    floe.write("compact")
    dag = FloePolicyDag("compact")
    assert dag.task_dict["execute"].partial_kwargs["outlets"] == []


def test_a_table_that_fails_fails_alone_and_the_verdict_names_it(floe, run_dag, capsys):
    small_files(floe.catalog, 4, name="broken")
    floe.table("broken").io.delete(floe.table("broken").metadata_location)
    floe.write("compact")
    run = run_dag(FloePolicyDag("compact"))
    assert run.state == "failed"
    assert states(run) == {**ALL_GREEN, "verdict": ["failed"]}
    assert len(data_files(floe.table())) == 1
    assert "lake.db.broken not assessed (unreadable)" in capsys.readouterr().out


def test_an_operation_that_fails_fails_the_verdict(floe, run_dag, capsys):
    floe.write("compact", rewriteDataFiles={"filter": "no_such_column > 1"})
    run = run_dag(FloePolicyDag("compact"), {"operations": ["rewrite_data_files"], "force": True})
    out = capsys.readouterr().out
    assert run.state == "failed"
    assert "no_such_column" in out
    assert len(data_files(floe.table())) == 8


def test_a_task_that_fails_is_named_by_the_verdict(floe, run_dag, capsys):
    floe.write("compact")
    dag = FloePolicyDag("compact")
    floe.set("AIRFLOW__FLOE__CATALOGS", "")
    run = run_dag(dag)
    assert states(run)["assess"] == ["failed"]
    assert run.state == "failed"
    assert "[floe] catalogs" in capsys.readouterr().out


def test_the_conf_narrows_a_run_and_a_dry_run_touches_nothing(floe, run_dag):
    floe.write("compact")
    run = run_dag(FloePolicyDag("compact"), {"dry_run": True})
    assert states(run) == {**ALL_GREEN, "execute": ["skipped"]}
    assert floe.store().operations() == []
    [plan] = floe.store().plans()
    assert {item.operation.value for item in plan.to_run} == {"rewrite_data_files", "expire_snapshots"}

    run_dag(FloePolicyDag("compact"), {"operations": ["expire_snapshots"]})
    assert [record.operation.value for record in floe.store().operations()] == ["expire_snapshots"]


def test_an_unknown_key_in_the_conf_is_refused(floe, run_dag, capsys):
    floe.write("compact")
    run = run_dag(FloePolicyDag("compact"), {"dryrun": True})
    assert states(run)["assess"] == ["failed"]
    assert "unknown key 'dryrun' in the run's conf: did you mean 'dry_run'?" in capsys.readouterr().out
    assert len(data_files(floe.table())) == 8


def test_a_disabled_policys_dag_stays_visible_and_refuses_to_run(floe, run_dag, capsys):
    floe.write("compact", enabled=False, rewriteDataFilesSchedule={"interval": 1})
    dag = FloePolicyDag("compact")
    assert "disabled" in dag.tags
    assert dag.timetable.can_be_scheduled is False
    run = run_dag(dag)
    assert states(run)["assess"] == ["failed"]
    assert "policy 'compact' is disabled" in capsys.readouterr().out


def test_a_store_in_memory_is_refused_in_the_first_of_several_tasks(floe, run_dag, capsys):
    floe.set("AIRFLOW__FLOE__STORE_URL", "memory://")
    floe.write("compact")
    run = run_dag(FloePolicyDag("compact"))
    assert states(run)["assess"] == ["failed"]
    assert "the Floe store is in memory" in capsys.readouterr().out


def test_several_policies_share_one_dag(floe, run_dag):
    floe.write("compact", expireSnapshots=None)
    floe.write("expire", rewriteDataFiles=None)
    with pytest.raises(ConfigurationError, match="dag_id"):
        FloePolicyDag(["compact", "expire"])
    run = run_dag(FloePolicyDag(["compact", "expire"], dag_id="both"))
    assert run.state == "success"
    found = {record.operation.value: record.policy for record in floe.store().operations()}
    assert found == {"rewrite_data_files": "compact", "expire_snapshots": "expire"}


def test_a_policy_in_code_needs_no_file_and_competes_with_those_in_files(floe, run_dag):
    floe.write("broad", tablePattern="lake.*.*")
    inline = {"name": "narrow", "tablePattern": "lake.db.events", "rewriteDataFiles": {}}
    with DAG("own", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        load = Load(task_id="load")
        group = FloeTaskGroup(inline, group_id="maintain")
        load >> group
    assert set(dag.task_dict) == {"load", *(f"maintain.{task}" for task in ALL_GREEN)}
    run = run_dag(dag)
    assert run.state == "success"
    found = {record.operation.value: record.policy for record in floe.store().operations()}
    assert found == {"rewrite_data_files": "narrow"}  # the rest is left to the runs of broad


def test_a_group_after_a_task_that_failed_fails_too(floe, run_dag, capsys):
    floe.write("compact")
    with DAG("own", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        Load(task_id="load", good=False) >> FloeTaskGroup("compact")
    run = run_dag(dag)
    assert states(run)["floe.assess"] == ["upstream_failed"]
    assert run.state == "failed"
    if Version(airflow_version) >= Version("3.2"):  # 3.1 cannot start a task after a mapped one that never expanded
        assert states(run)["floe.verdict"] == ["failed"]
        assert "task before floe.assess failed" in capsys.readouterr().out


def test_a_policy_in_code_may_not_take_a_files_name(floe, run_dag, capsys):
    floe.write("compact")
    run = run_dag(FloePolicyDag({"name": "compact", "tablePattern": "*", "expireSnapshots": {}}))
    assert run.state == "failed"
    assert "policy 'compact' stands both in the DAG and in" in capsys.readouterr().out


def test_mistakes_in_code_are_named_when_the_file_is_parsed(floe):
    floe.write("compact")
    with pytest.raises(PolicyNotFound, match="'compat'"):
        FloePolicyDag("compat")
    with pytest.raises(InvalidPolicy, match=r"'p' in the DAG.*tablePatern"):
        FloePolicyDag({"name": "p", "tablePatern": "*"})


def test_schedules_follow_the_policy_unless_switched_off(floe):
    floe.write("compact", rewriteDataFilesSchedule={"cronExpression": "0 2 * * *"})
    dag = FloePolicyDag("compact", task_kwargs={"pool": "heavy", "retries": 3})
    assert dag.timetable.serialize()["expression"] == "0 2 * * *"
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    assert {task.pool for task in dag.tasks} == {"heavy"}
    assert dag.task_dict["execute"].retries == 3
    assert [task.task_id for task in dag.tasks if not task.downstream_task_ids] == ["verdict"]
    floe.set("AIRFLOW__FLOE__SCHEDULE_POLICIES", "False")
    floe.set("AIRFLOW__FLOE__POOL", "maintenance")
    dag = FloePolicyDag("compact")
    assert dag.timetable.can_be_scheduled is False
    assert {task.pool for task in dag.tasks} == {"maintenance"}
    assert FloePolicyDag("compact", schedule="@daily").timetable.can_be_scheduled


def test_several_tasks_may_share_the_file_groups_of_a_table(floe, run_dag, monkeypatch):
    # one task after the other runs here, in any order: a helper that comes first must not wait for the others
    monkeypatch.setattr("airflow_provider_floe.maintenance.sharing.PATIENCE_SECONDS", 0.0)
    floe.set("AIRFLOW__FLOE__BATCH_BYTES", "1000")
    floe.write("compact")
    before = rows_digest(floe.table())
    run = run_dag(FloePolicyDag("compact", task_kwargs={"max_tasks_per_table": 3}))
    assert run.state == "success"
    assert states(run) == {**ALL_GREEN, "execute": ["success"] * 3}
    assert rows_digest(floe.table()) == before
    assert len(data_files(floe.table())) == 1
    labels = {instance.rendered_map_index for instance in run.get_task_instances() if instance.task_id == "execute"}
    assert labels == {"lake.db.events", "lake.db.events, helper 1", "lake.db.events, helper 2"}
    records = [record for record in floe.store().operations() if record.operation is Operation.REWRITE_DATA_FILES]
    assert len(records) == 1
