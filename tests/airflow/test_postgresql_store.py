"""The Floe store on a real PostgreSQL server, by a connection of the Postgres provider."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from dag_runs import states
from harness.postgres import PostgreSQL, postgresql
from harness.tables import data_files

from airflow_provider_floe.dag_factory import FloePolicyDag
from airflow_provider_floe.stores.open import open_store


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with postgresql() as running:
        yield running


def store_connection(server: PostgreSQL, password: str) -> str:
    fields = {
        "conn_type": "postgres",
        "host": server.host,
        "port": server.port,
        "schema": server.database,
        "login": server.user,
        "password": password,
    }
    return json.dumps(fields)


def test_a_policy_dag_keeps_its_records_in_the_database_of_the_connection(floe, run_dag, server):
    floe.set("AIRFLOW_CONN_FLOE_STORE", store_connection(server, server.password))
    floe.set("AIRFLOW__FLOE__STORE_CONN_ID", "floe_store")
    floe.write("compact")
    run = run_dag(FloePolicyDag("compact"))
    assert run.state == "success"
    assert len(data_files(floe.table())) == 1
    assert floe.store().operations() == []  # the SQLite file of [floe] store_url is not used
    store = open_store(server.url())
    assert {record.status for record in store.operations()} == {"SUCCESS"}
    assert "execute" in {record.context["task_id"] for record in store.operations()}
    store.close()


def test_a_wrong_password_fails_the_first_task_and_is_shown_nowhere(floe, run_dag, server, capsys, caplog):
    floe.set("AIRFLOW_CONN_FLOE_STORE", store_connection(server, "wr0ng/secret"))
    floe.set("AIRFLOW__FLOE__STORE_CONN_ID", "floe_store")
    floe.write("compact")
    run = run_dag(FloePolicyDag("compact"))
    assert run.state == "failed"
    assert states(run)["assess"] == ["failed"]
    told = capsys.readouterr().out + caplog.text
    assert "password authentication failed" in told
    assert "wr0ng" not in told
    assert len(data_files(floe.table())) == 8
