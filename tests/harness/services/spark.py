"""Spark with the Iceberg runtime: to submit to, running as a gateway, as a Connect server; each version by itself."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.environments import environment
from harness.services.base import Facts, Service, Start
from harness.services.java import java_home
from harness.services.maven import artifact
from harness.services.process import free_port, launch, listens, wait_until

CATALOG = "lake"
"""The REST catalog, in every Spark. ``files`` is a catalog in a folder."""


@dataclass(frozen=True)
class Spark:
    """A version of Spark and of the Iceberg runtime for it."""

    version: str
    scala: str
    iceberg: str
    aws_bundle: str
    java: tuple[int, int]

    @property
    def line(self) -> str:
        """Major and minor version."""
        return self.version.rpartition(".")[0]

    @property
    def connect_jar(self) -> str | None:
        """From version 4 on Spark has it already."""
        if not self.version.startswith("3."):
            return None
        return f"org.apache.spark:spark-connect_{self.scala}:{self.version}:jar"


VERSIONS = (
    Spark("3.5.7", "2.12", "1.10.2", "1.10.1", (17, 17)),
    Spark("4.1.3", "2.13", "1.11.0", "1.11.0", (17, 21)),
)
_POSTGRESQL = "org.postgresql:postgresql:42.7.13:jar"
"""The driver that Iceberg's JDBC catalog needs; on the class path itself, where every thread's first look finds it."""
_CONNECT = (
    "pandas>=2,<3",
    "pyarrow>=15",
    "grpcio>=1.67",
    "grpcio-status>=1.67",
    "googleapis-common-protos",
    "zstandard",
)
_DEFAULTS = """\
spark.master local[2]
spark.driver.memory 1g
spark.driver.host 127.0.0.1
spark.driver.bindAddress 127.0.0.1
spark.driver.extraJavaOptions -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dderby.system.home={home}/derby
spark.local.dir {home}/local
spark.sql.warehouse.dir {home}/hive
spark.ui.enabled false
spark.sql.shuffle.partitions 2
spark.jars {jars}
spark.driver.extraClassPath {driver}
spark.sql.extensions org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions
spark.sql.catalog.files org.apache.iceberg.spark.SparkCatalog
spark.sql.catalog.files.type hadoop
spark.sql.catalog.files.warehouse file://{home}/warehouse
spark.sql.catalog.{catalog} org.apache.iceberg.spark.SparkCatalog
spark.sql.catalog.{catalog}.type rest
spark.sql.catalog.{catalog}.uri {uri}
spark.sql.catalog.{catalog}.io-impl org.apache.iceberg.aws.s3.S3FileIO
spark.sql.catalog.{catalog}.s3.endpoint {endpoint}
spark.sql.catalog.{catalog}.s3.path-style-access true
spark.sql.catalog.{catalog}.s3.access-key-id {key}
spark.sql.catalog.{catalog}.s3.secret-access-key {secret}
spark.sql.catalog.{catalog}.client.region {region}
"""
_LOGGING = """\
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
appender.console.type=Console
appender.console.name=console
appender.console.target=SYSTEM_ERR
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{HH:mm:ss} %p %c{1}: %m%n%ex
"""


def interpreter(spark: Spark) -> Path:
    """A Python that has PySpark."""
    return environment(f"spark-{spark.version}", ["setuptools", f"pyspark=={spark.version}", *_CONNECT])


def iceberg_runtime(spark: Spark) -> Path:
    """The jar that teaches Spark Iceberg."""
    return artifact(f"org.apache.iceberg:iceberg-spark-runtime-{spark.line}_{spark.scala}:{spark.iceberg}:jar")


def _jars(spark: Spark) -> list[Path]:
    wanted = [f"org.apache.iceberg:iceberg-aws-bundle:{spark.aws_bundle}:jar"]
    return [iceberg_runtime(spark), *(artifact(one) for one in (*wanted, *filter(None, [spark.connect_jar])))]


def _install(spark: Spark) -> None:
    interpreter(spark)
    _jars(spark)
    artifact(_POSTGRESQL)


def _prepare(spark: Spark, home: Path, needs: Mapping[str, Facts]) -> dict[str, str]:
    """Write the configuration. The facts are the environment variables that spark-submit needs."""
    python = interpreter(spark)
    config = home / "conf"
    config.mkdir(parents=True)
    (home / "local").mkdir()
    jars = ",".join(str(jar) for jar in _jars(spark))
    driver, uri = artifact(_POSTGRESQL), needs["rest"]["uri"]
    defaults = _DEFAULTS.format(home=home, jars=jars, driver=driver, catalog=CATALOG, uri=uri, **needs["s3"])
    (config / "spark-defaults.conf").write_text(defaults)
    (config / "log4j2.properties").write_text(_LOGGING)
    spark_home = next(python.parents[1].glob("lib/python*/site-packages/pyspark"))
    return {
        "JAVA_HOME": str(java_home(*spark.java)),
        "SPARK_HOME": str(spark_home),
        "SPARK_CONF_DIR": str(config),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": str(python),
        "SPARK_SCALA_VERSION": spark.scala,
    }


def _start_submit(spark: Spark, home: Path, needs: Mapping[str, Facts]) -> Start:
    return Start({**_prepare(spark, home, needs), "catalog": CATALOG, "version": spark.version})


def _start_connect(spark: Spark, home: Path, needs: Mapping[str, Facts]) -> Start:
    variables = _prepare(spark, home, needs)
    port = free_port()
    jar = str(artifact(spark.connect_jar)) if spark.connect_jar else "spark-internal"
    log = home / "spark.log"
    process = launch(
        [
            Path(variables["SPARK_HOME"]) / "bin/spark-submit",
            *("--class", "org.apache.spark.sql.connect.service.SparkConnectServer"),
            *("--conf", f"spark.connect.grpc.binding.port={port}"),
            *("--conf", "spark.connect.grpc.binding.address=127.0.0.1", jar),
        ],
        log=log,
        cwd=home / "work",
        environment={**variables, "PATH": f"{Path(variables['PYSPARK_PYTHON']).parent}:{os.environ['PATH']}"},
    )
    wait_until(process, log, lambda: listens(port))
    facts = {"url": f"sc://127.0.0.1:{port}", "host": "127.0.0.1", "port": str(port), "catalog": CATALOG}
    return Start({**variables, **facts, "version": spark.version}, process)


def _start_gateway(spark: Spark, home: Path, needs: Mapping[str, Facts]) -> Start:
    variables = _prepare(spark, home, needs)
    log, told = home / "spark.log", home / "gateway.json"
    process = launch(
        [
            Path(variables["SPARK_HOME"]) / "bin/spark-submit",
            *(Path(__file__).with_name("spark_gateway.py"), told),
        ],
        log=log,
        cwd=home / "work",
        environment={**variables, "PATH": f"{Path(variables['PYSPARK_PYTHON']).parent}:{os.environ['PATH']}"},
    )
    wait_until(process, log, told.exists)
    return Start({**variables, **json.loads(told.read_text()), "catalog": CATALOG, "version": spark.version}, process)


SPARKS = tuple(
    Service(f"{kind}-{spark.line}", partial(_install, spark), partial(start, spark), needs=("s3", "rest"))
    for spark in VERSIONS
    for kind, start in (
        ("spark-submit", _start_submit),
        ("spark-gateway", _start_gateway),
        ("spark-connect", _start_connect),
    )
)
