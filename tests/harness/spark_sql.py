"""Spark SQL on the running Spark of service ``spark-gateway-3.5``: makes the tables that pyiceberg cannot make."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from harness.services.base import Facts

_RUNNER = Path(__file__).with_name("spark_in_gateway.py")


def gateway_command(spark: Facts) -> tuple[list[str], dict[str, str]]:
    """What runs an application in the Spark of the gateway, without starting another, and its environment variables."""
    python = Path(spark["PYSPARK_PYTHON"])
    variables = {name: value for name, value in spark.items() if name.isupper()}
    return [str(python), str(_RUNNER)], {**variables, "PATH": f"{python.parent}:{os.environ['PATH']}"}


class SparkSql:
    """A Spark session in a process of its own, which answers a line of JSON for each statement.

    :param spark: facts of the gateway.
    """

    def __init__(self, spark: Facts) -> None:
        command, variables = gateway_command(spark)
        self._process = subprocess.Popen(
            [*command, str(Path(__file__).with_name("spark_sql_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **variables},
            text=True,
            bufsize=1,
        )

    def __call__(self, *statements: str) -> list[list[Any]]:
        """The rows of the last statement.

        :raises AssertionError: when Spark refuses one.
        """
        rows: list[list[Any]] = []
        for statement in statements:
            assert self._process.stdin
            assert self._process.stdout
            self._process.stdin.write(json.dumps(statement) + "\n")
            answer = json.loads(self._process.stdout.readline())
            if "error" in answer:
                raise AssertionError(f"Spark refuses {statement}: {answer['error']}")
            rows = answer["rows"]
        return rows

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)
