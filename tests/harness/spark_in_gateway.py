"""Runs what spark-submit would be given, as a process of its own, in a Spark that is up already.

    python spark_in_gateway.py [options of spark-submit] application.py arguments

Of the options, that Spark has a use for settings of the session only (``--conf spark.sql...``).

So what spark-submit spends most of its time on, the start of Java and of Spark, is spent once for many submissions.
Each has a Spark session of its own, and waits until those before it are over. Service ``spark-gateway-3.5`` tells by
environment variables where that Spark is.
"""

from __future__ import annotations

import fcntl
import os
import runpy
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from pyspark import SparkConf, SparkContext
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession


def main(arguments: list[str]) -> None:
    gateway = launch_gateway()
    jvm = gateway.jvm
    running = jvm.org.apache.spark.SparkContext.getOrCreate()
    java_context = jvm.org.apache.spark.api.java.JavaSparkContext.fromSparkContext(running)
    context = SparkContext(conf=SparkConf(_jconf=java_context.getConf()), gateway=gateway, jsc=java_context)
    default = jvm.org.apache.spark.sql.SparkSession.getDefaultSession().get()
    session = default.newSession()
    SparkSession(context, session)  # what the builder gives out from now on
    application = next(position for position, one in enumerate(arguments) if Path(one).suffix == ".py")
    for option, setting in pairwise(arguments[:application]):
        if option == "--conf" and setting.startswith("spark.sql."):
            session.conf().set(*setting.split("=", 1))
    sys.argv = arguments[application:]
    with open(Path(os.environ["SPARK_CONF_DIR"], "applications.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one after the other, as what they put into their commits is of the process
        _forget_commit_properties(jvm)
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        finally:
            _forget_commit_properties(jvm)


def _forget_commit_properties(jvm: Any) -> None:
    """They would stand in the commits of whatever comes next."""
    properties = jvm.org.apache.iceberg.EnvironmentContext
    for name in [name for name in properties.get() if name.startswith("floe.")]:
        properties.remove(name)


main(sys.argv[1:])
