"""A connection to Spark Connect that breaks while Spark works."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

import pytest
from harness.services.rest import rest_catalog
from harness.services.running import use
from harness.tables import SCHEMA, append_files
from spark_submission import CATALOG, now_context, run

from airflow_provider_floe.engines.spark import connect
from airflow_provider_floe.engines.spark.connect import ConnectRoute
from airflow_provider_floe.engines.spark.engine import SparkEngine
from airflow_provider_floe.errors import CommitOutcomeUnknown, EngineUnavailable
from airflow_provider_floe.policies.model import RewriteDataFiles

pytestmark = pytest.mark.services

SECRET = "hush-4711-marker"


class Wire:
    """Stands between client and server, until it is cut."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close every connection, and take no more."""
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._open += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@contextmanager
def wire() -> Iterator[tuple[Wire, dict[str, dict[str, str]]]]:
    with use("s3", "rest", "spark-connect-4.1") as services:
        spark = services["spark-connect-4.1"]
        made = Wire(spark["host"], int(spark["port"]))
        try:
            yield made, {name: dict(facts) for name, facts in services.items()}
        finally:
            made.cut()


def test_a_connection_lost_in_the_middle_is_named_and_tells_no_secret(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connect, "_RETRIES", 1)
    with wire() as (cable, services), caplog.at_level(logging.DEBUG):
        catalog = rest_catalog(services)
        namespace = f"lost_{uuid4().hex[:8]}"
        catalog.create_namespace(namespace)
        table = append_files(catalog.create_table((namespace, "t"), schema=SCHEMA), 4)
        # A token would make the client ask for TLS: here it is the user's name that must not be told
        route = ConnectRoute(f"sc://127.0.0.1:{cable.port}/;user_id={SECRET}", "connect_test")
        engine = SparkEngine(route, {CATALOG: "lake"})
        context = now_context(table)

        def cut() -> None:
            if context.remote_jobs:
                cable.cut()

        context.on_checkpoint = cut
        with pytest.raises((EngineUnavailable, CommitOutcomeUnknown), match="'connect_test'") as lost:
            run(engine, table, RewriteDataFiles(), context)
    assert SECRET not in str(lost.value)
    assert SECRET not in caplog.text
    assert not context.commits_done
