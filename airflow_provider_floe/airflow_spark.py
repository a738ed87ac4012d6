"""The Spark engine on connections of the Spark provider. Never called while parsing."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_floe import config
from airflow_provider_floe.errors import ConfigurationError, EngineUnavailable
from airflow_provider_floe.hooks.floe import connection_fields, find_connection

if TYPE_CHECKING:
    from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook

    from airflow_provider_floe.engines.base import Engine
    from airflow_provider_floe.engines.spark.route import SparkRoute

_CODE = re.compile(r"Error code is: (\d+)")


def spark_engine(conn_id: str, catalogs: Mapping[str, str]) -> Engine:
    """The Spark engine on a connection of type ``spark`` (spark-submit), ``spark_connect`` or ``livy``.

    It connects when it is first used.

    :param catalogs: Spark's names of the catalogs, by the names that policies use; empty: the same names, for all of
        ``[floe] catalogs``.
    :raises ConfigurationError: when there is no such connection, or it is of another type.
    """
    from airflow_provider_floe.engines.spark.engine import SparkEngine

    kind = find_connection(conn_id).conn_type
    if kind == "livy":
        from airflow_provider_floe.airflow_livy import livy_engine

        return livy_engine(conn_id, catalogs or _same_names())
    return SparkEngine(_route(conn_id, kind), catalogs or _same_names())


def _route(conn_id: str, kind: str | None) -> SparkRoute:
    if kind == "spark":
        from airflow_provider_floe.engines.spark.submit import SubmitRoute

        return SubmitRoute(HookSubmitter(conn_id), conn_id)
    if kind == "spark_connect":
        from airflow.providers.apache.spark.hooks.spark_connect import SparkConnectHook

        from airflow_provider_floe.engines.spark.connect import ConnectRoute

        return ConnectRoute(SparkConnectHook(conn_id).get_connection_url(), conn_id)
    raise ConfigurationError(
        f"[floe] spark_conn_id = {conn_id!r}: the connection is of type {kind!r}, but the engine needs one of type "
        "spark (spark-submit), spark_connect or livy"
    )


def _same_names() -> dict[str, str]:
    from airflow_provider_floe.catalogs.fields import catalog_name

    names = [catalog_name(connection_fields(conn_id)) for conn_id in config.catalog_conn_ids()]
    return dict(zip(names, names, strict=True))


class HookSubmitter:
    """Starts spark-submit by the Spark provider's hook, with all that its connection says.

    :param conn_id: of a connection of type ``spark``.
    """

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id

    def __call__(
        self, application: Path, arguments: Sequence[str], *, files: Sequence[Path], name: str, here: bool = False
    ) -> HookSubmission:
        """See :class:`~airflow_provider_floe.engines.spark.submit.Submitter`."""
        from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook

        hook = SparkSubmitHook(
            conn_id=self._conn_id,
            name=name,
            files=",".join(str(file) for file in files) or None,
            application_args=list(arguments),
            deploy_mode="client" if here else None,
        )
        return HookSubmission(hook, str(application), self._conn_id)


class HookSubmission:
    """A running spark-submit, in a thread of its own; the hook puts what it prints into the task's log."""

    def __init__(self, hook: SparkSubmitHook, application: str, conn_id: str) -> None:
        self._hook = hook
        self._conn_id = conn_id
        self._code = 0
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._submit, args=(application,), name="spark-submit", daemon=True)
        self._thread.start()

    @property
    def id(self) -> str:
        """Connection and host: the hook logs what the cluster calls it."""
        return f"{self._conn_id} on {socket.gethostname()}"

    def wait(self, seconds: float) -> int | None:
        """See :class:`~airflow_provider_floe.engines.spark.submit.Submission`."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            return None
        if self._error is not None:
            raise EngineUnavailable(
                f"connection {self._conn_id!r}: spark-submit cannot be started ({self._error}): check that Spark is "
                "installed where this task runs, and on the PATH"
            ) from self._error
        return self._code

    def kill(self) -> None:
        """As the hook does it: the process, and the application on YARN, Kubernetes or standalone."""
        if self._thread.is_alive():
            self._hook.on_kill()

    def _submit(self, application: str) -> None:
        options: dict[str, Any] = {"start_new_session": True}
        try:
            self._hook.submit(application, **options)
        except OSError as error:
            self._error = error
        except Exception as error:  # an AirflowException with the exit code in its text
            found = _CODE.search(str(error))
            self._code = int(found.group(1)) if found else 1
