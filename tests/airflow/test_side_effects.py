"""Metrics, links and cancellation of tasks that Airflow runs in this process."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import pytest
from airflow.sdk import DAG
from dag_runs import states
from harness.tables import append_files, data_files

from airflow_provider_floe import airflow_events
from airflow_provider_floe.dag_factory import FloePolicyDag
from airflow_provider_floe.operators.execute import FloeExecuteOperator
from airflow_provider_floe.operators.maintenance import FloeMaintenanceOperator
from airflow_provider_floe.tables import Operation


class Recorder:
    """Airflow's Stats, remembered."""

    def __init__(self):
        self.counts = Counter()
        self.gauges = {}
        self.timings = {}

    def incr(self, name, **_):
        self.counts[name] += 1

    def gauge(self, name, value, **_):
        self.gauges[name] = value

    def timing(self, name, value, **_):
        self.timings[name] = value


@pytest.fixture
def stats(monkeypatch):
    found = Recorder()
    monkeypatch.setattr(airflow_events, "Stats", found)
    return found


def own_dag(**kwargs):
    with DAG("own", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        FloeMaintenanceOperator(task_id="maintain", table="lake.db.events", **kwargs)
    return dag


def test_a_run_that_works_is_counted(floe, run_dag, stats):
    floe.write("compact", triggerConditions={"smallFileCountAbove": 5})
    floe.write("off", enabled=False)
    run_dag(FloePolicyDag("compact"))
    assert stats.counts == {
        "floe_maintenance_triggers_total": 1,
        "floe_policy_matches_total": 1,
        "floe_trigger_evaluations_total": 2,
        "floe_trigger_conditions_met_total": 2,
        "floe_maintenance_success_total": 2,
    }
    assert stats.gauges == {"floe_active_policies": 1, "floe_running_operations": 0}
    assert stats.timings["floe_operation_duration_seconds"].total_seconds() > 0


def test_gates_that_block_or_force_are_counted(floe, run_dag, stats):
    floe.write("compact", expireSnapshots=None, triggerConditions={"smallFileCountAbove": 500})
    run_dag(own_dag())
    assert stats.counts["floe_trigger_conditions_not_met_total"] == 1
    critical = {"criticalPipeline": True, "criticalPipelineMaxDelayMinutes": 1, "smallFileCountAbove": 500}
    floe.write("compact", expireSnapshots=None, triggerConditions=critical)
    run_dag(own_dag())
    assert stats.counts["floe_trigger_forced_by_critical_pipeline_total"] == 1
    assert stats.counts["floe_maintenance_success_total"] == 1
    floe.write("compact", rewriteDataFiles=None, triggerConditions={"minIntervalMinutes": 60})
    run_dag(own_dag(operations=["expire_snapshots"]))
    append_files(floe.table(), 2)
    run_dag(own_dag(operations=["expire_snapshots"]))
    assert stats.counts["floe_trigger_blocked_by_interval_total"] == 1


def test_a_failure_is_counted_and_on_record(floe, run_dag, stats):
    floe.write("compact", expireSnapshots=None)
    dag = own_dag()

    def refuse(self, request, context):
        raise OSError("disk full")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("airflow_provider_floe.engines.local.engine.LocalEngine.execute", refuse)
        run = run_dag(dag)
    assert states(run) == {"maintain": ["failed"]}
    assert stats.counts["floe_maintenance_failures_total"] == 1
    assert stats.counts["floe_maintenance_success_total"] == 0
    [record] = floe.store().operations()
    assert (record.status, record.error) == ("FAILED", "OSError: disk full")


def test_the_record_link_is_kept_for_each_batch(floe, run_dag):
    floe.write("compact")
    run = run_dag(FloePolicyDag("compact"))
    instance = next(one for one in run.get_task_instances() if one.task_id == "execute")
    link = instance.xcom_pull(task_ids="execute", key="_link_FloeRecordLink", map_indexes=0)
    assert link.endswith("/tasks/execute/mapped/0/xcom")
    answer = instance.xcom_pull(task_ids="execute", map_indexes=0)
    assert [line["operation"] for line in answer["records"]] == ["rewrite_data_files", "expire_snapshots"]


def test_a_task_that_is_killed_stops_before_its_next_side_effect(floe, run_dag, capsys):
    floe.write("compact")
    dag = own_dag()
    task = dag.task_dict["maintain"]
    task.on_kill()
    run = run_dag(dag)
    assert states(run) == {"maintain": ["failed"]}
    assert "OperationCancelled" in capsys.readouterr().out
    assert len(data_files(floe.table())) == 8


def test_running_a_batch_again_runs_only_what_is_unfinished(floe, run_dag):
    floe.write("compact", expireSnapshots=None)
    first = run_dag(FloePolicyDag("compact"))
    instance = next(one for one in first.get_task_instances() if one.task_id == "execute")
    plan_id = instance.xcom_pull(task_ids="execute", map_indexes=0)["plan_id"]
    with DAG("again", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        FloeExecuteOperator(task_id="execute", plan_id=plan_id, batch=0)
    second = run_dag(dag)
    assert states(second) == {"execute": ["success"]}
    answer = second.get_task_instance("execute").xcom_pull(task_ids="execute")
    assert answer["records"] == []
    assert len(answer["finished before"]) == 1
    assert len(floe.store().operations(operation=Operation.REWRITE_DATA_FILES)) == 1
