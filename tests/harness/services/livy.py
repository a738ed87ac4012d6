"""Apache Livy, whose batches run on the Spark 3.5 of these services; interactive sessions would need Scala 2.11."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from harness.services.base import Facts, Service, Start
from harness.services.java import java_home
from harness.services.maven import libraries
from harness.services.process import answers, free_port, launch, wait_until

VERSION = "0.7.1-incubating"
_SPARK = "spark-submit-3.5"
_CONFIG = """\
livy.server.host = 127.0.0.1
livy.server.port = {port}
livy.server.csrf-protection.enabled = true
livy.server.recovery.mode = off
livy.server.session.state-retain.sec = 600s
livy.spark.master = local[1]
livy.spark.deploy-mode = client
livy.file.local-dir-whitelist = {files}
livy.repl.enable-hive-context = false
livy.environment = development
"""
_LOGGING = """\
log4j.rootCategory=WARN, console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d{HH:mm:ss} %p %c{1}: %m%n
"""
_OPENED = (
    *("java.io", "java.lang", "java.lang.invoke", "java.lang.reflect", "java.net", "java.nio"),
    *("java.util", "java.util.concurrent", "java.util.concurrent.atomic", "sun.nio.ch"),
)
"""Packages of Java that Livy, made for Java 8, looks into."""


def _install() -> Path:
    return libraries(f"livy-{VERSION}", [f"org.apache.livy:livy-server:{VERSION}"])


def _start(home: Path, needs: Mapping[str, Facts]) -> Start:
    spark = needs[_SPARK]
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    files, config = home / "files", home / "conf"
    for folder in (files, config, home / "logs", home / "rsc-jars", home / "repl_2.12-jars"):
        folder.mkdir()
    (config / "livy.conf").write_text(_CONFIG.format(port=port, files=files))
    (config / "log4j.properties").write_text(_LOGGING)
    log = home / "livy.log"
    variables = {name: value for name, value in spark.items() if name.isupper()}
    python = Path(spark["PYSPARK_PYTHON"]).parent
    process = launch(
        [
            *(java_home(11, 17) / "bin/java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED),
            *("-cp", f"{config}:{_install()}/*", "org.apache.livy.server.LivyServer"),
        ],
        log=log,
        cwd=home,
        environment={
            **variables,
            "LIVY_HOME": str(home),
            "LIVY_CONF_DIR": str(config),
            "PATH": f"{python}:{os.environ['PATH']}",
        },
    )
    wait_until(process, log, lambda: answers(f"{url}/batches"))
    facts = {"url": url, "host": "127.0.0.1", "port": str(port), "files": str(files), "pid": str(process.pid)}
    return Start({**facts, "catalog": spark["catalog"], "spark": spark["version"]}, process)


LIVY = Service("livy", _install, _start, needs=(_SPARK,))
"""Its batches may only be of files in the folder ``files``."""
