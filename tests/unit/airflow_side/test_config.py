from __future__ import annotations

import pytest

from airflow_provider_floe import airflow_environment, config
from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.health.report import ScanMode
from airflow_provider_floe.maintenance.settings import Settings


def test_without_configuration_every_setting_has_its_default():
    assert config.read_settings() == Settings()


def test_options_are_read_in_their_types(monkeypatch):
    for name, text in {
        "PERSIST_HEALTH": "False",
        "MAX_TABLES_PER_RUN": "7",
        "BACKOFF_HOURS": "1.5",
        "SCAN_MODE": "sample",
        "SCORE_WEIGHTS": '{"critical": 200}',
        "DEFAULT_TIMEZONE": "Europe/Paris",
    }.items():
        monkeypatch.setenv(f"AIRFLOW__FLOE__{name}", text)
    found = config.read_settings()
    assert (found.persist_health, found.max_tables_per_run, found.backoff_hours) == (False, 7, 1.5)
    assert found.scan_mode is ScanMode.SAMPLE
    assert found.score_weights == {"critical": 200.0}
    assert found.default_timezone == "Europe/Paris"


@pytest.mark.parametrize(
    ("name", "text"),
    [("max_tables_per_run", "many"), ("scan_mode", "deep"), ("score_weights", "critical=2"), ("lease_seconds", "0")],
)
def test_a_wrong_option_is_named_with_its_value(monkeypatch, name, text):
    monkeypatch.setenv(f"AIRFLOW__FLOE__{name.upper()}", text)
    with pytest.raises(ConfigurationError) as refused:
        config.read_settings()
    assert f"[floe] {name} = '{text}'" in str(refused.value)


def test_a_wrong_switch_is_named(monkeypatch):
    monkeypatch.setenv("AIRFLOW__FLOE__SCHEDULE_POLICIES", "perhaps")
    with pytest.raises(ConfigurationError, match="schedule_policies = 'perhaps'"):
        config.schedule_policies()


def test_schedules_without_a_zone_use_airflows(monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__DEFAULT_TIMEZONE", "America/New_York")
    assert config.default_timezone() == config.read_settings().default_timezone == "America/New_York"


def test_airflows_system_zone_has_a_name(monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__DEFAULT_TIMEZONE", "system")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert config.default_timezone() == "Asia/Tokyo"


def test_catalogs_are_a_list_of_connection_ids(monkeypatch):
    assert config.catalog_conn_ids() == ()
    monkeypatch.setenv("AIRFLOW__FLOE__CATALOGS", " lake, archive,\n cold ")
    assert config.catalog_conn_ids() == ("lake", "archive", "cold")


@pytest.mark.parametrize(
    ("executor", "spanning"),
    [
        ("LocalExecutor", None),
        ("CeleryExecutor", "CeleryExecutor"),
        ("LocalExecutor,KubernetesExecutor", "KubernetesExecutor"),
        ("fast:airflow.providers.amazon.aws.executors.ecs.AwsEcsExecutor", "AwsEcsExecutor"),
        ("LocalExecutor;team_a=CeleryExecutor", "CeleryExecutor"),
    ],
)
def test_the_sqlite_store_is_refused_where_tasks_run_on_several_hosts(monkeypatch, tmp_path, executor, spanning):
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    if spanning is None:
        assert airflow_environment.store_url() == f"sqlite:///{tmp_path}/floe.db"
        return
    with pytest.raises(ConfigurationError, match=rf"{spanning}.*\[floe\] store_conn_id"):
        airflow_environment.store_url()


def test_a_kubernetes_executors_pod_gives_itself_away(monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
    monkeypatch.setenv("AIRFLOW_IS_K8S_EXECUTOR_POD", "True")
    with pytest.raises(ConfigurationError, match="KubernetesExecutor"):
        airflow_environment.store_url()


def test_the_stores_connection_wins_over_its_url(monkeypatch):
    monkeypatch.setenv("AIRFLOW__FLOE__STORE_URL", "memory://")
    assert airflow_environment.store_url() == "memory://"
    monkeypatch.setenv("AIRFLOW_CONN_FLOE_DB", "postgres://me:secret@db.example:5433/floe")
    monkeypatch.setenv("AIRFLOW__FLOE__STORE_CONN_ID", "floe_db")
    assert airflow_environment.store_url().partition("://")[2] == "me:secret@db.example:5433/floe"


def test_a_store_connection_of_another_type_is_refused(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_FLOE_DB", "mysql://me:secret@db/floe")
    with pytest.raises(ConfigurationError, match=r"'floe_db'.*type 'mysql'.*postgres"):
        airflow_environment.store_url("floe_db")


def test_a_relative_policies_path_is_relative_to_the_dag_file(monkeypatch, tmp_path):
    dag_file = tmp_path / "dags" / "loader.py"
    assert config.policies_path(beside=dag_file) == tmp_path / "dags" / "policies"
    monkeypatch.setenv("AIRFLOW__FLOE__POLICIES_PATH", "team/policies.yaml")
    assert config.policies_path(beside=dag_file) == tmp_path / "dags" / "team" / "policies.yaml"
    monkeypatch.setenv("AIRFLOW__FLOE__POLICIES_PATH", "/etc/floe")
    assert str(config.policies_path(beside=dag_file)) == "/etc/floe"
