"""The Spark engine on Airflow's connections."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_floe.airflow_environment import open_engines
from airflow_provider_floe.airflow_spark import HookSubmitter, spark_engine
from airflow_provider_floe.engines.spark.connect import ConnectRoute
from airflow_provider_floe.engines.spark.engine import SparkEngine
from airflow_provider_floe.engines.spark.submit import SubmitRoute
from airflow_provider_floe.errors import ConfigurationError, EngineUnavailable
from airflow_provider_floe.maintenance.settings import Settings


def connection(monkeypatch: pytest.MonkeyPatch, conn_id: str, **fields: object) -> None:
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))


def spark_submit(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> Path:
    """A spark-submit on the PATH that writes down how it was called."""
    binary = folder / "spark-submit"
    binary.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {folder}/called\n{script}\n')
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder / "called"


def test_the_type_of_the_connection_says_which_way_to_spark(monkeypatch: pytest.MonkeyPatch) -> None:
    connection(monkeypatch, "lake", conn_type="floe", extra={"catalog_name": "prod"})
    connection(monkeypatch, "submit", conn_type="spark", host="yarn")
    connection(monkeypatch, "connect", conn_type="spark_connect", host="spark", port=15002, password="hush")
    connection(monkeypatch, "other", conn_type="trino", host="trino")
    monkeypatch.setenv("AIRFLOW__FLOE__CATALOGS", "lake")
    for conn_id, route in (("submit", SubmitRoute), ("connect", ConnectRoute)):
        engine = spark_engine(conn_id, {})
        assert isinstance(engine, SparkEngine)
        assert isinstance(engine.route, route)
        assert engine.catalogs == {"prod": "prod"}
    with pytest.raises(ConfigurationError, match=r"spark_conn_id = 'other'.*'trino'.*spark_connect"):
        spark_engine("other", {})


def test_the_configuration_names_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "spark" not in open_engines(Settings())
    monkeypatch.setenv("AIRFLOW__FLOE__SPARK_CONN_ID", "submit")
    with pytest.raises(ConfigurationError, match="no connection 'submit'"):
        open_engines(Settings())["spark"].probe()
    connection(monkeypatch, "submit", conn_type="spark", host="yarn", extra={"floe_catalogs": {"prod": "lake"}})
    engine = open_engines(Settings())["spark"]
    assert isinstance(engine, SparkEngine)
    assert engine.catalogs == {"prod": "lake"}


def test_the_hook_submits_and_tells_the_exit_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    connection(
        monkeypatch,
        "submit",
        conn_type="spark",
        host="spark://m:7077",
        password="hush",
        extra={"deploy-mode": "cluster"},
    )
    called = spark_submit(monkeypatch, tmp_path, "exit 71")
    request = tmp_path / "request.json"
    submission = HookSubmitter("submit")(tmp_path / "job.py", [str(request)], files=[request], name="n", here=True)
    assert submission.wait(30) == 71
    arguments = called.read_text().splitlines()
    assert arguments[-2:] == [str(tmp_path / "job.py"), str(request)]
    assert arguments[arguments.index("--files") + 1] == str(request)
    assert arguments[arguments.index("--deploy-mode") + 1] == "client"
    assert "hush" not in called.read_text()


def test_killing_ends_spark_submit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    connection(monkeypatch, "submit", conn_type="spark", host="local[1]")
    called = spark_submit(monkeypatch, tmp_path, "exec sleep 600")
    submission = HookSubmitter("submit")(tmp_path / "job.py", [], files=[], name="n")
    while not called.exists():
        assert submission.wait(0.05) is None
    submission.kill()
    assert submission.wait(30)


def test_no_spark_on_the_worker_is_said_plainly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    connection(monkeypatch, "submit", conn_type="spark", host="local[1]")
    monkeypatch.setenv("PATH", str(tmp_path))
    submission = HookSubmitter("submit")(tmp_path / "job.py", [], files=[], name="n")
    with pytest.raises(EngineUnavailable, match=r"'submit'.*on the PATH"):
        submission.wait(30)
