"""The DAG ``floe_maintenance`` and its operator: one table, from the conf to the record."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from airflow.sdk import DAG
from dag_runs import states
from harness.tables import data_files, small_files

from airflow_provider_floe.dag_factory import table_maintenance_dag
from airflow_provider_floe.operators.maintenance import FloeMaintenanceOperator
from airflow_provider_floe.tables import Operation

CONF = {"catalog": "lake", "namespace": "db", "table": "events"}


@pytest.fixture
def trigger(floe, run_dag, capsys):
    """Triggers the DAG; answers with the run's state and its log."""

    def run(**conf):
        capsys.readouterr()
        found = run_dag(table_maintenance_dag(), {**CONF, **conf})
        return found.state, capsys.readouterr().out

    return run


@pytest.mark.parametrize("namespace", ["db", ["db"]], ids=["text", "list"])
def test_it_maintains_the_table_that_the_conf_names(floe, trigger, namespace):
    floe.write("compact")
    state, _ = trigger(namespace=namespace)
    assert state == "success"
    assert len(data_files(floe.table())) == 1
    assert {record.operation.value: record.status.value for record in floe.store().operations()} == {
        "rewrite_data_files": "SUCCESS",
        "expire_snapshots": "SUCCESS",
    }


def test_it_looks_at_no_schedule(floe, trigger):
    floe.write("compact", rewriteDataFilesSchedule={"cronExpression": "0 0 29 2 *"})
    assert trigger()[0] == "success"
    assert len(data_files(floe.table())) == 1


def test_a_store_in_memory_is_enough(floe, trigger):
    floe.set("AIRFLOW__FLOE__STORE_URL", "memory://")
    floe.write("compact")
    assert trigger()[0] == "success"
    assert len(data_files(floe.table())) == 1


def test_operations_policy_and_dry_run_are_honoured(floe, trigger):
    floe.write("compact")
    floe.write("expire", rewriteDataFiles=None)
    state, log = trigger(dry_run=True)
    assert state == "success"
    assert "rewrite_data_files would run" in log
    assert floe.store().operations() == []
    assert trigger(policy="expire", operations=["expireSnapshots"])[0] == "success"
    [record] = floe.store().operations()
    assert (record.operation.value, record.policy) == ("expire_snapshots", "expire")
    assert len(data_files(floe.table())) == 8


@pytest.mark.parametrize(
    ("policies", "conf", "told"),
    [
        ([{}], {"tabel": "events"}, "unknown key 'tabel' in the run's conf: did you mean 'table'?"),
        ([{"tablePattern": "lake.other.*"}], {}, "PolicyNotFound: no policy matches table lake.db.events"),
        ([{}], {"table": "evnts"}, "TableNotFound: lake.db.evnts"),
        ([{"enabled": False}], {}, "PolicyDisabled: every policy that matches table lake.db.events is disabled"),
        ([{"enabled": False}], {"policy": "p0"}, "PolicyDisabled"),
        ([{}], {"policy": "p9"}, "PolicyNotFound"),
        ([{}, {"tablePattern": "lake.other.*"}], {"policy": "p1"}, "PolicyDoesNotMatch"),
        ([{"tablePattern": "*"}], {"catalog": "lak"}, "no catalog named 'lak': configured are lake"),
        ([{}], {"operations": ["compact"]}, "unknown operation 'compact'"),
    ],
    ids=[
        "unknown key",
        "no policy",
        "no table",
        "disabled policies",
        "disabled policy named",
        "unknown policy named",
        "named policy does not match",
        "unknown catalog",
        "unknown operation",
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_touched(request, floe, trigger, policies, conf, told):
    for number, fields in enumerate(policies):
        floe.write(f"p{number}", **fields)
    before = floe.table().metadata_location
    state, log = trigger(**conf)
    assert state == "failed"
    assert told in log
    assert "UP_FOR_RETRY" not in log
    assert floe.table().metadata_location == before
    begun = {"unknown key": False, "unknown operation": False}.get(request.node.callspec.id, True)
    recorded = {record.status.value for record in floe.store().operations()}
    assert recorded <= {"NO_POLICY", "SKIPPED"}
    assert bool(recorded) == begun


def test_a_conf_that_the_form_would_not_allow_is_refused_by_airflow(floe, run_dag):
    from airflow.providers.common.compat.sdk import ParamValidationError

    with pytest.raises((ParamValidationError, ValueError)):
        run_dag(table_maintenance_dag(), {"catalog": "lake", "namespace": "", "table": "events"})


def test_the_form_offers_the_configured_catalogs_and_the_operations(floe):
    params = table_maintenance_dag().params
    assert params.get_param("catalog").schema["examples"] == ["lake"]
    assert "rewrite_data_files" in params.get_param("operations").schema["examples"]


def own_dag(**kwargs):
    with DAG("own", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        FloeMaintenanceOperator(task_id="maintain", **kwargs)
    return dag


@pytest.mark.parametrize(
    "arguments",
    [
        {"table": "lake.db.events"},
        {"table": "events", "namespace": "db", "catalog": "lake"},
        {"table": "events", "namespace": ["db"]},
        {"table": "events", "namespace": "{{ 'd' + 'b' }}", "catalog_conn_id": "lake"},
        {"table": "db.events", "catalog": "lake"},
    ],
    ids=["dotted", "parts", "only catalog", "template", "catalog apart"],
)
def test_the_operator_takes_a_table_in_several_forms(floe, run_dag, arguments):
    run = run_dag(own_dag(policy={"name": "p", "tablePattern": "lake.db.events", "rewriteDataFiles": {}}, **arguments))
    assert states(run) == {"maintain": ["success"]}
    assert len(data_files(floe.table())) == 1


def test_the_operator_is_mapped_over_tables(floe, run_dag):
    small_files(floe.catalog, 3, name="clicks")
    floe.write("compact")
    with DAG("own", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        FloeMaintenanceOperator.partial(
            task_id="maintain", dry_run=False, map_index_template="{{ task.table }}"
        ).expand(table=["lake.db.events", "lake.db.clicks"])
    run = run_dag(dag)
    assert states(run) == {"maintain": ["success", "success"]}
    assert {one.rendered_map_index for one in run.get_task_instances()} == {"lake.db.events", "lake.db.clicks"}
    assert [len(data_files(floe.table(name))) for name in ("events", "clicks")] == [1, 1]


def test_its_answer_names_records_and_decisions(floe, run_dag):
    floe.write("compact")
    run = run_dag(own_dag(table="lake.db.events"))
    answer = run.get_task_instance("maintain").xcom_pull(task_ids="maintain")
    record = floe.store().operations(operation=Operation.REWRITE_DATA_FILES)[0]
    assert {"operation_id": record.id, "table": "lake.db.events"}.items() <= answer["records"][0].items()
    assert answer["decisions"]["remove_orphan_files"] == "not governed"
    assert answer["plan_id"] == floe.store().plans()[0].id


def test_a_failed_operation_fails_the_task(floe, run_dag, capsys):
    floe.write("compact", rewriteDataFiles={"filter": "no_such_column > 1"})
    run = run_dag(own_dag(table="lake.db.events", operations=["rewrite_data_files"], force=True))
    assert states(run) == {"maintain": ["failed"]}
    assert "no_such_column" in capsys.readouterr().out
