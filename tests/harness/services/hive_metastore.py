"""A Hive metastore over Thrift, on Derby, its tables in the S3 store."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

from harness.services.base import Facts, Service, Start
from harness.services.java import java_home
from harness.services.maven import libraries
from harness.services.process import START_SECONDS, free_port, launch, listens, wait_until

VERSION = "3.1.3"
_HADOOP = "3.3.6"
_DEPENDENCIES = (
    f"org.apache.hive:hive-standalone-metastore:{VERSION}",
    f"org.apache.hadoop:hadoop-client-api:{_HADOOP}",
    f"org.apache.hadoop:hadoop-client-runtime:{_HADOOP}",
    f"org.apache.hadoop:hadoop-aws:{_HADOOP}",
    "com.amazonaws:aws-java-sdk-s3:1.12.367",
    "com.amazonaws:aws-java-sdk-sts:1.12.367",
    "com.amazonaws:aws-java-sdk-dynamodb:1.12.367",
    "org.wildfly.openssl:wildfly-openssl:1.1.3.Final",
    "org.apache.derby:derby:10.14.2.0",
    "commons-cli:commons-cli:1.5.0",
    "commons-collections:commons-collections:3.2.2",
    "commons-lang:commons-lang:2.6",
)
# The client jars hold all of Hadoop; the others are tools, or not to be had
_WITHOUT = {
    "org.apache.hive:hive-standalone-metastore": (
        "org.apache.hadoop:*",
        "org.apache.logging.log4j:log4j-web",
        "jdk.tools:*",
        "org.pentaho:*",
    ),
    "org.apache.hadoop:hadoop-aws": ("*:*",),
}

# The schema is made at the first use, but not the tables of locks, without which every commit fails
_PREPARE = """\
public class Prepare {
    public static void main(String[] arguments) throws Exception {
        var configuration = org.apache.hadoop.hive.metastore.conf.MetastoreConf.newMetastoreConf();
        org.apache.hadoop.hive.metastore.txn.TxnDbUtil.prepDb(configuration);
        System.exit(0);
    }
}
"""
_LOGGING = """\
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{HH:mm:ss} %p %c{1}: %m%n%ex
"""


def _install() -> Path:
    return libraries(f"hive-metastore-{VERSION}", _DEPENDENCIES, without=_WITHOUT)


def _start(home: Path, needs: Mapping[str, Facts]) -> Start:
    s3 = needs["s3"]
    warehouse = f"s3://{s3['bucket']}/hive"
    port = free_port()
    config = home / "conf"
    config.mkdir()
    (config / "metastore-site.xml").write_text(_xml(_settings(home, warehouse, s3)))
    (config / "log4j2.properties").write_text(_LOGGING)
    (home / "Prepare.java").write_text(_PREPARE)
    java = java_home(11, 17) / "bin/java"
    common = [
        *(f"-Dlog4j.configurationFile={config}/log4j2.properties", f"-Dderby.stream.error.file={home}/derby.log"),
        *("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{config}:{_install()}/*"),
    ]
    made = subprocess.run(
        [java, "-Xmx256m", *common, home / "Prepare.java"],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
    if made.returncode:
        raise RuntimeError(f"the metastore's lock tables were not made: {(made.stdout + made.stderr)[-3000:]}")
    log = home / "hive-metastore.log"
    opened = ("java.lang", "java.net", "java.util", "java.util.concurrent")
    process = launch(
        [
            *(java, "-Xmx384m", *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in opened), *common),
            *("org.apache.hadoop.hive.metastore.HiveMetaStore", "-p", str(port)),
        ],
        log=log,
        cwd=home,
    )
    wait_until(process, log, lambda: listens(port))
    return Start({"uri": f"thrift://127.0.0.1:{port}", "warehouse": warehouse, "version": VERSION}, process)


def _settings(home: Path, warehouse: str, s3: Facts) -> dict[str, str]:
    return {
        "javax.jdo.option.ConnectionURL": f"jdbc:derby:;databaseName={home}/derby;create=true",
        "javax.jdo.option.ConnectionDriverName": "org.apache.derby.jdbc.EmbeddedDriver",
        "datanucleus.schema.autoCreateAll": "true",
        "metastore.schema.verification": "false",
        "metastore.warehouse.dir": warehouse,
        "metastore.expression.proxy": "org.apache.hadoop.hive.metastore.DefaultPartitionExpressionProxy",
        "metastore.event.db.notification.api.auth": "false",
        "metastore.stats.autogather": "false",
        "metastore.task.threads.always": "org.apache.hadoop.hive.metastore.txn.AcidHouseKeeperService",
        "metastore.task.threads.remote": "",
        "metastore.thrift.bind.host": "127.0.0.1",
        "metastore.server.min.threads": "5",
        "metastore.execute.setugi": "false",
        # Locks of writers that died: minutes by default
        "metastore.txn.timeout": "20s",
        "metastore.timedout.txn.reaper.start": "1s",
        "metastore.timedout.txn.reaper.interval": "1s",
        "metastore.try.direct.sql": "false",
        "fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "fs.s3a.endpoint": s3["endpoint"],
        "fs.s3a.access.key": s3["key"],
        "fs.s3a.secret.key": s3["secret"],
        "fs.s3a.path.style.access": "true",
    }


def _xml(settings: Mapping[str, str]) -> str:
    listed = "".join(
        f"<property><name>{name}</name><value>{escape(value)}</value></property>" for name, value in settings.items()
    )
    return f"<configuration>{listed}</configuration>"


HIVE_METASTORE = Service("hive-metastore", _install, _start, needs=("s3",))
