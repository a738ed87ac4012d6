"""Where an engine elsewhere cannot be used, the run says so with the connection and what to check, and tells no secret.

Each case is a whole run with credentials that hold a marker, which is then looked for everywhere.
"""

from __future__ import annotations

import json
import logging
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from harness.tables import append_files, create_table, lake
from trino.dbapi import connect as connect_trino

from airflow_provider_floe.catalogs.base import ConnectionFields
from airflow_provider_floe.catalogs.client import connect
from airflow_provider_floe.engines.base import Engine
from airflow_provider_floe.engines.capabilities import Capabilities, CatalogAccess, OperationCapability
from airflow_provider_floe.engines.spark.connect import ConnectRoute
from airflow_provider_floe.engines.spark.engine import SparkEngine
from airflow_provider_floe.engines.spark.process import SparkSubmit
from airflow_provider_floe.engines.spark.submit import SubmitRoute
from airflow_provider_floe.engines.trino.engine import TrinoEngine
from airflow_provider_floe.health.report import TableId
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.request import RunRequest, RunResult
from airflow_provider_floe.maintenance.run import run
from airflow_provider_floe.planning.model import Disposition, RunMode
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.stores.open import open_store
from airflow_provider_floe.stores.protocols import OperationStatus
from airflow_provider_floe.tables import Operation, TableRef

MARKER = "hush-4711-marker"
REWRITE = Operation.REWRITE_DATA_FILES

_SUBMIT = """#!{python}
import json, os, pathlib, sys
seen = {{"command": pathlib.Path("/proc/self/cmdline").read_bytes().decode().split("\\0"), "files": {{}}}}
for argument in sys.argv[1:]:
    for path in argument.split(","):
        if os.path.isfile(path) and path.endswith(".json"):
            seen["files"][path] = pathlib.Path(path).read_text()
seen["told"] = os.environ["CATALOG_TOKEN"]
pathlib.Path({seen!r}).write_text(json.dumps(seen))
print("cannot reach the master")
sys.exit(3)
"""


@dataclass
class Deployment:
    """A table of small files, and a run of a policy over it on one engine."""

    folder: Path

    def run(self, engine: Engine) -> RunResult:
        table = append_files(create_table(lake(self.folder)), 3)
        fields = ConnectionFields(
            "lake",
            extra={
                "catalog_kind": "sql",
                "uri": f"sqlite:///{self.folder}/catalog.db",
                "warehouse": f"file://{self.folder}/warehouse",
                "properties": {"s3.secret-access-key": MARKER, "token": MARKER},
            },
        )
        document = {"name": "all", "tablePattern": "*", "engine": engine.name, REWRITE.policy_key: {}}
        env = Environment(
            store=open_store(f"sqlite:///{self.folder}/floe.db"),
            policies=(Policy.model_validate(document),),
            catalogs={"lake": connect(fields)},
            engines={engine.name: engine},
        )
        *namespace, name = table.name()
        request = RunRequest(
            run_id="run-1",
            mode=RunMode.TABLE_CONF,
            table=TableId.of(TableRef("lake", tuple(namespace), name)),
            operations=(REWRITE,),
            context={},
        )
        before = table.metadata_location
        found = run(env, request)
        assert table.refresh().metadata_location == before
        assert all(record.status is not OperationStatus.RUNNING for record in env.store.operations())
        return found

    def holds(self, text: str) -> list[str]:
        """The files of the deployment, its store and its tables among them, that hold a text."""
        return [str(path) for path in self.folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.fixture
def deployment(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Deployment]:
    with caplog.at_level(logging.DEBUG):
        yield Deployment(tmp_path)
    told = [record.getMessage() for record in caplog.records if MARKER in record.getMessage()]
    assert not told, "in the log"
    assert not caplog.text.count(MARKER)


@contextmanager
def server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            assert MARKER in self.headers["Authorization"]
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    running = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield running.server_address[1]
    finally:
        running.shutdown()
        running.server_close()


def refuse(handler: BaseHTTPRequestHandler) -> None:
    handler.send_error(401, "no")


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def unavailable(found: RunResult) -> str:
    """Why nothing ran."""
    (item,) = (item for item in found.plan.items if item.operation is REWRITE)
    assert item.disposition is Disposition.UNAVAILABLE, item
    assert found.records == () or not any(record.result for record in found.records)
    return " ".join(item.reasons)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (refuse, "refused the credentials of connection 'trino_test'"),
        (hang_up, "does not answer on connection 'trino_test'"),
    ],
)
def test_trino_refuses_or_hangs_up(
    deployment: Deployment, answer: Callable[[BaseHTTPRequestHandler], None], words: str
) -> None:
    with server(answer) as port:
        options = {"user": "u", "http_headers": {"Authorization": f"Bearer {MARKER}"}, "max_attempts": 1}
        engine = TrinoEngine(lambda: connect_trino("127.0.0.1", port, **options), {}, connection="trino_test")
        said = unavailable(deployment.run(engine))
    assert words in said
    assert "check its" in said
    assert MARKER not in said
    assert not deployment.holds(MARKER)


def test_spark_connect_does_not_answer(deployment: Deployment) -> None:
    route = ConnectRoute(f"sc://127.0.0.1:9/;token={MARKER};user_id={MARKER}", "connect_test")
    said = unavailable(deployment.run(SparkEngine(route, {"lake": "lake"})))
    assert "'connect_test' does not answer: check its host and port" in said
    assert MARKER not in said
    assert not deployment.holds(MARKER)


class Probed(SparkEngine):
    """A Spark that answered when the plan was made, and is gone when the job is sent."""

    def probe(self) -> Capabilities:
        return Capabilities(
            engine="spark",
            version="Spark",
            operations={REWRITE: OperationCapability()},
            catalogs={"lake": CatalogAccess()},
        )


@pytest.mark.parametrize("planned", [False, True])
def test_spark_submit_fails(deployment: Deployment, planned: bool) -> None:
    seen = deployment.folder.with_name(f"{deployment.folder.name}-seen.json")
    binary = deployment.folder / "spark-submit"
    binary.write_text(_SUBMIT.format(python=sys.executable, seen=str(seen)))
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    submit = SparkSubmit([str(binary)], environment={"CATALOG_TOKEN": MARKER}, connection="spark_test")
    kind = Probed if planned else SparkEngine
    found = deployment.run(kind(SubmitRoute(submit, "spark_test"), {"lake": "lake"}))
    if planned:
        (record,) = found.records
        assert record.status is OperationStatus.FAILED
        said = record.error or ""
    else:
        said = unavailable(found)
    assert "of connection 'spark_test'" in said
    assert "ended with code 3" in said
    assert "heck the master" in said
    told: Mapping[str, Any] = json.loads(seen.read_text())
    assert told["told"] == MARKER, "credentials reach Spark by its environment"
    assert told["files"], "the request reaches Spark by a file"
    assert MARKER not in json.dumps([told["command"], told["files"], said])
    assert not deployment.holds(MARKER)
