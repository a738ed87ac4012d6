from __future__ import annotations

from conftest import states
from harness.tables import data_files, rows_digest

from airflow_provider_floe.dag_factory import FloePolicyDag


def test_it_compacts_the_tables_of_its_policy(floe, run_dag):
    floe.write("compact")
    before = rows_digest(floe.table())
    assert len(data_files(floe.table())) == 8
    run = run_dag(FloePolicyDag("compact"))
    assert run.state == "success"
    assert {task: set(found) for task, found in states(run).items()} == {
        "assess": {"success"},
        "plan": {"success"},
        "execute": {"success"},
        "verdict": {"success"},
    }
    assert len(data_files(floe.table())) == 1
    assert rows_digest(floe.table()) == before
