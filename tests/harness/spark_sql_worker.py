"""Runs inside Spark's environment: reads statements from stdin, answers their rows."""

from __future__ import annotations

import json
import sys

from pyspark.sql import SparkSession


def main() -> None:
    spark = SparkSession.builder.getOrCreate()
    for line in sys.stdin:
        try:
            answer = {"rows": [list(row) for row in spark.sql(json.loads(line)).collect()]}
        except Exception as error:
            answer = {"error": str(error)[:2000]}
        print(json.dumps(answer, default=str), flush=True)


main()
