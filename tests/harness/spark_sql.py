"""Ways into the Sparks of the harness: SQL over Spark Connect, and submissions to a Spark that is up already."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.services.base import Facts

_RUNNER = Path(__file__).with_name("spark_in_gateway.py")


def gateway_command(spark: Facts) -> tuple[list[str], dict[str, str]]:
    """What runs an application in the Spark of a gateway, without starting another, and its environment variables."""
    python = Path(spark["PYSPARK_PYTHON"])
    variables = {name: value for name, value in spark.items() if name.isupper()}
    return [str(python), str(_RUNNER)], {**variables, "PATH": f"{python.parent}:{os.environ['PATH']}"}


class SparkSql:
    """A Spark session on a server of the harness.

    :param spark: facts of a Spark Connect service.
    :param settings: of this session, beside those of the server.
    """

    def __init__(self, spark: Facts, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        from pyspark.sql.connect.session import SparkSession

        self._session = SparkSession.builder.remote(spark["url"]).create()
        for name, value in settings.items():
            self._session.conf.set(name, value)

    def __call__(self, *statements: str) -> list[list[Any]]:
        """The rows of the last statement."""
        rows: list[list[Any]] = []
        for statement in statements:
            rows = [list(row) for row in self._session.sql(statement).collect()]
        return rows

    def named(self, statement: str) -> list[dict[str, Any]]:
        """The rows of a statement with the names of columns and of fields of structs."""
        return [row.asDict(recursive=True) for row in self._session.sql(statement).collect()]

    def close(self) -> None:
        """End the session."""
        self._session.stop()
