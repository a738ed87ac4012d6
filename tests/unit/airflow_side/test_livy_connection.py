"""The Spark engine on a connection of type livy: what it needs, what it sends, and what it says when that fails."""

from __future__ import annotations

import argparse
import base64
import builtins
import json
import runpy
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_floe.airflow_livy import HookRequests
from airflow_provider_floe.airflow_spark import spark_engine
from airflow_provider_floe.cli.commands import spark_job_file
from airflow_provider_floe.engines.base import ResumableEngine
from airflow_provider_floe.engines.spark import job
from airflow_provider_floe.engines.spark.livy import LivyEngine
from airflow_provider_floe.engines.spark.livy_server import LivyServer
from airflow_provider_floe.errors import ConfigurationError, EngineUnavailable, MissingExtra

EXTRA = {"floe_catalogs": {"prod": "lake"}, "floe_livy_job_file": "s3a://bucket/floe_job.py"}


class Guarded(ThreadingHTTPServer):
    """A gateway before Livy, that asks for a password."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), GuardedHandler)
        self.seen: list[dict[str, str]] = []


class GuardedHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Guarded)
        self.server.seen.append({"path": self.path, **self.headers})
        allowed = self.headers.get("Authorization") == "Basic " + base64.b64encode(b"me:hush").decode()
        body = json.dumps({"total": 0, "sessions": []} if allowed else {"msg": "no"}).encode()
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[Guarded]:
    with Guarded() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def connection(monkeypatch: pytest.MonkeyPatch, **fields: object) -> None:
    document = {"conn_type": "livy", "host": "127.0.0.1", "extra": EXTRA, **fields}
    monkeypatch.setenv("AIRFLOW_CONN_BATCHES", json.dumps(document))


def test_a_connection_of_type_livy_makes_an_engine_whose_jobs_outlive_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    connection(monkeypatch)
    engine = spark_engine("batches", {"prod": "lake"})
    assert isinstance(engine, LivyEngine)
    assert isinstance(engine, ResumableEngine)
    assert engine.catalogs == {"prod": "lake"}


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({"floe_livy_job_file": ""}, r"'batches': floe_livy_job_file in its extra must say where .*spark-job-file"),
        ({"floe_livy_probe_table": "floe"}, r"'batches': floe_livy_probe_table in its extra: 'floe' is not a table"),
        ({"floe_livy_batch": "queue=nightly"}, r"'batches': floe_livy_batch in its extra must be fields"),
        ({"floe_livy_batch": {"conf": ["a"]}}, "must be fields of Livy's batches"),
        ({"floe_livy_batch": {"args": ["a"], "name": "b"}}, "must not set args, name"),
        (
            {"floe_livy_batch": {"conf": {"spark.sql.catalog.lake.s3.secret-access-key": "hush"}}},
            r"sets spark.sql.catalog.lake.s3.secret-access-key, but whoever may look .*spark-defaults.conf",
        ),
    ],
)
def test_what_is_wrong_in_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, extra: dict[str, object], told: str
) -> None:
    connection(monkeypatch, extra={**EXTRA, **extra})
    with pytest.raises(ConfigurationError, match=told) as raised:
        spark_engine("batches", {"prod": "lake"})
    assert "hush" not in str(raised.value)


def test_without_the_provider_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("airflow.providers.apache.livy"):
            raise ImportError(name)
        return real(name, *rest, **more)

    connection(monkeypatch)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtra, match=r"'batches' of type livy needs .*floe\[livy\]"):
        spark_engine("batches", {"prod": "lake"})


def test_the_server_gets_credentials_and_headers_but_none_of_our_keys(
    monkeypatch: pytest.MonkeyPatch, gateway: Guarded
) -> None:
    address = f"http://127.0.0.1:{gateway.server_address[1]}/gateway/livy"
    connection(monkeypatch, host=address, login="me", password="hush", extra={**EXTRA, "X-Team": "lake"})
    requests = HookRequests("batches")
    assert LivyServer(requests, "batches").find("floe-1") is None
    (seen,) = gateway.seen
    assert seen["path"].startswith("/gateway/livy/batches?")
    assert seen["X-Team"] == "lake"
    assert seen["X-Requested-By"], "without it a server that guards against forged requests refuses"
    assert not [name for name in seen if name.startswith("floe")]
    assert requests.url == address


def test_wrong_credentials_are_told_without_them(monkeypatch: pytest.MonkeyPatch, gateway: Guarded) -> None:
    connection(monkeypatch, port=gateway.server_address[1], login="me", password="guessed")
    with pytest.raises(ConfigurationError, match=r"'batches' refuses the credentials \(HTTP 401\)") as raised:
        LivyServer(HookRequests("batches"), "batches").find("floe-1")
    assert "guessed" not in str(raised.value)


def test_a_server_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        connection(monkeypatch, port=unused.getsockname()[1])
        with pytest.raises(EngineUnavailable, match=r"'batches' does not answer \(ConnectionError\): check host, port"):
            LivyServer(HookRequests("batches"), "batches").find("floe-1")


def test_credentials_in_the_address_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    connection(monkeypatch, host="https://me:hush@gateway.example/livy")
    assert HookRequests("batches").url == "https://gateway.example/livy"


def test_the_job_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "new" / "floe_job.py"
    with pytest.raises(SystemExit, match=r"^0$"):
        spark_job_file(argparse.Namespace(path=str(path)))
    written = runpy.run_path(str(path))
    assert written["version"]() == job.version()
