"""Trino, coordinator and worker in one process, with the Iceberg connector only."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import urllib.request
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from harness.services.base import Facts, Service, Start
from harness.services.java import java_home
from harness.services.maven import SERVICES, artifact, libraries, once
from harness.services.process import free_port, launch, wait_until

ARCHIVE, ASSEMBLED = "476", "483"
"""The last version with a server archive, and a newer one that is put together from its libraries."""

CATALOG, GUARDED = "lake", "guarded"
"""Catalogs of every server, both on the REST catalog: one without minimum retention, one with Trino's own 7 days."""

_MAIN = """\
public class Main {
    public static void main(String[] arguments) throws Exception {
        Class<?> server = Class.forName("io.trino.server.Server");
        server.getMethod("start", String.class).invoke(server.getConstructor().newInstance(), arguments[0]);
    }
}
"""
# The plugin's interfaces must be the server's
_OF_SERVER = ("trino-spi", "slice", "jackson-annotations", "opentelemetry-api", "opentelemetry-context")
_SERVER_CONFIG = """\
coordinator=true
node-scheduler.include-coordinator=true
http-server.http.port={port}
discovery.uri=http://127.0.0.1:{port}
query.max-memory=300MB
query.max-memory-per-node=300MB
memory.heap-headroom-per-node=200MB
task.concurrency=2
task.max-worker-threads=4
catalog.management=dynamic
"""
_CATALOG_CONFIG = """\
connector.name=iceberg
iceberg.catalog.type=rest
iceberg.rest-catalog.uri={uri}
iceberg.rest-catalog.nested-namespace-enabled=true
fs.native-s3.enabled=true
s3.endpoint={endpoint}
s3.region={region}
s3.path-style-access=true
s3.aws-access-key={key}
s3.aws-secret-key={secret}
"""
_NO_MINIMUM = """\
iceberg.expire-snapshots.min-retention=0s
iceberg.remove-orphan-files.min-retention=0s
"""


def _install_archive() -> Path:
    home = SERVICES / f"trino-{ARCHIVE}"
    if (home / ".complete").exists():
        return home
    server = artifact(f"io.trino:trino-server-core:{ARCHIVE}:tar.gz")
    plugin = artifact(f"io.trino:trino-iceberg:{ARCHIVE}:zip")
    with once(home, ARCHIVE) as missing:
        if missing:
            with tarfile.open(server) as archive:
                archive.extractall(home, filter="data")
            unpacked = home / f"trino-server-core-{ARCHIVE}"
            unpacked.joinpath("lib").rename(home / "lib")
            shutil.rmtree(unpacked)
            with zipfile.ZipFile(plugin) as archive:
                archive.extractall(home / "plugin")
            (home / "plugin" / f"trino-iceberg-{ARCHIVE}").rename(home / "plugin/iceberg")
    for fetched in (server, plugin):
        shutil.rmtree(fetched.parent)
    return home


def _install_assembled() -> Path:
    home = SERVICES / f"trino-{ASSEMBLED}"
    server = libraries(f"trino-{ASSEMBLED}-server", [f"io.trino:trino-main:{ASSEMBLED}"])
    plugin = libraries(f"trino-{ASSEMBLED}-iceberg", [f"io.trino:trino-iceberg:{ASSEMBLED}"])
    with once(home, ASSEMBLED) as missing:
        if missing:
            (home / "plugin/iceberg").mkdir(parents=True)
            (home / "lib").symlink_to(server)
            for jar in plugin.glob("*.jar"):
                if jar.name.rpartition("-")[0] not in _OF_SERVER:
                    (home / "plugin/iceberg" / jar.name).symlink_to(jar)
            with zipfile.ZipFile(home / "plugin/iceberg/services.jar", "w") as services:
                services.writestr("META-INF/services/io.trino.spi.Plugin", "io.trino.plugin.iceberg.IcebergPlugin\n")
            (home / "main").mkdir()
            (home / "main/Main.java").write_text(_MAIN)
            subprocess.run([java_home(25) / "bin/javac", "-d", home / "main", home / "main/Main.java"], check=True)
    return home


def _start_archive(home: Path, needs: Mapping[str, Facts]) -> Start:
    return _start(home, needs, ARCHIVE, _install_archive(), java_home(24), ["io.trino.server.TrinoServer"])


def _start_assembled(home: Path, needs: Mapping[str, Facts]) -> Start:
    return _start(home, needs, ASSEMBLED, _install_assembled(), java_home(25), ["Main", ASSEMBLED])


def _start(home: Path, needs: Mapping[str, Facts], version: str, installed: Path, java: Path, main: list[str]) -> Start:
    port = free_port()
    work = home / "server"
    config = work / "etc"
    (config / "catalog").mkdir(parents=True)
    # The server looks for its plugins, and newer ones for the catalogs, in the folder that it runs in
    for part in ("lib", "plugin"):
        (work / part).symlink_to(installed / part)
    (work / "secrets-plugin").mkdir()
    (config / "config.properties").write_text(_SERVER_CONFIG.format(port=port))
    (config / "log.properties").write_text("io.trino=WARN\n")
    catalog = _CATALOG_CONFIG.format(uri=needs["rest"]["uri"], **needs["s3"])
    (config / "catalog" / f"{CATALOG}.properties").write_text(catalog + _NO_MINIMUM)
    (config / "catalog" / f"{GUARDED}.properties").write_text(catalog)
    log = home / "trino.log"
    process = launch(
        [
            *(java / "bin/java", "-Xmx1g", "-Xms256m", "-XX:+UseSerialGC", "-XX:ReservedCodeCacheSize=256m"),
            # Starts in half the time, and fast enough for small tables
            *("-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError"),
            *("-Djdk.attach.allowAttachSelf=true", "--enable-native-access=ALL-UNNAMED", *_vector_module(java)),
            *("-Dfile.encoding=UTF-8", "-Dnode.environment=test", "-Dnode.id=trino-test"),
            *(f"-Dnode.data-dir={home}/var", "-Dnode.bind-ip=127.0.0.1", "-Dnode.internal-address=127.0.0.1"),
            *(f"-Dconfig={config}/config.properties", f"-Dlog.levels-file={config}/log.properties"),
            *(f"-Dcatalog.config-dir={config}/catalog", "-cp", f"{installed}/main:{installed}/lib/*", *main),
        ],
        log=log,
        cwd=work,
        environment={"MALLOC_ARENA_MAX": "2", "AWS_REGION": needs["s3"]["region"]},
    )
    wait_until(process, log, partial(_is_up, port))
    facts = {"host": "127.0.0.1", "port": str(port), "version": version, "catalog": CATALOG, "guarded": GUARDED}
    return Start(facts, process)


def _vector_module(java: Path) -> list[str]:
    listed = subprocess.run([java / "bin/java", "--list-modules"], capture_output=True, text=True).stdout
    return ["--add-modules=jdk.incubator.vector"] if "jdk.incubator.vector" in listed else []


def _is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/info", timeout=5) as answer:
            return not json.load(answer)["starting"]
    except OSError:
        return False


TRINOS = (
    Service(f"trino-{ARCHIVE}", _install_archive, _start_archive, needs=("s3", "rest")),
    Service(f"trino-{ASSEMBLED}", _install_assembled, _start_assembled, needs=("s3", "rest")),
)
