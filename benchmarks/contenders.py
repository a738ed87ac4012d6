"""How the peers of rewrites are installed and started: each in a process, and where it needs it an environment, of its
own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lineitem
from harness.environments import environment
from harness.rest_server import rest_server
from measuring import Measured, failure, measure


@dataclass(frozen=True)
class Place:
    """What is rewritten, and where to.

    :ivar folder: a contender writes here; a table's warehouse lies in it.
    :ivar names: a file with the paths of ``files``.
    """

    folder: Path
    layout: str
    files: Sequence[Path]
    names: Path
    target_bytes: int

    def writer(self, label: str, name: str, python: Path | str = sys.executable) -> Measured:
        """A contender that writes files and knows no table."""
        script = Path(__file__).with_name("rewrite_peers.py")
        return measure(label, self.folder, [python, script, name, self.folder, self.target_bytes, self.names])


@contextmanager
def sql_table(place: Place, properties: Mapping[str, str] | None = None) -> Iterator[list[str]]:
    """A table in a SQL catalog; what is yielded is the catalog's URI."""
    catalog = lineitem.catalog(place.folder / "warehouse")
    table = lineitem.create_table(catalog, place.layout, place.files)
    if properties:
        with table.transaction() as change:
            change.set_properties(**properties)
    yield [str(catalog.properties["uri"])]


@contextmanager
def rest_table(place: Place) -> Iterator[list[str]]:
    """A table in a REST catalog that this process serves; what is yielded is its URI."""
    with rest_server(place.folder) as server:
        lineitem.create_table(server.catalog, place.layout, place.files)
        yield [server.uri]


@dataclass(frozen=True)
class Peer:
    """Another way to rewrite.

    :ivar start: runs it.
    :ivar installed: it needs nothing but what we depend on.
    """

    label: str
    start: Callable[[Place, str], Measured]
    installed: bool = False

    def run(self, place: Place) -> Measured:
        """Its figures; or why there are none, when it can be neither installed nor started."""
        try:
            return self.start(place, self.label)
        except Exception as error:  # of whatever kind: it is told in the table
            return failure(self.label, f"cannot be started: {error}")


def writes_files(name: str, *packages: str) -> Callable[[Place, str], Measured]:
    def start(place: Place, label: str) -> Measured:
        return place.writer(label, name, environment(f"peer-{name}", packages) if packages else sys.executable)

    return start


def commits(
    name: str, installed: Callable[[], tuple[Sequence[Any], Sequence[Any]]], table: Callable[[Place], Any]
) -> Callable[[Place, str], Measured]:
    """One of ``compaction_peers.py``.

    :param installed: installs it, and gives the command of its Python and what else to tell it.
    """

    def start(place: Place, label: str) -> Measured:
        python, more = installed()
        script = Path(__file__).with_name("compaction_peers.py")
        named = f"bench.{place.layout}"
        command = [*python, script, name, place.folder, place.target_bytes, named, *more]
        return measure(label, place.folder, command, partial(table, place))

    return start


def same(*packages: str) -> list[str]:
    """The versions of ours, so that the difference is not theirs."""
    return [f"{package}=={version(package)}" for package in packages]


def zamboni() -> tuple[list[Any], list[Any]]:
    packages = ["iceberg-zamboni==0.7.0", *same("pyiceberg", "pyarrow", "duckdb", "sqlalchemy")]
    return [environment("peer-zamboni", packages)], []


def compactor() -> tuple[list[Any], list[Any]]:
    return [environment("peer-compactor", ["iceberg-compaction==202604.9.0rc0"])], []


def spark() -> tuple[list[Any], list[Any]]:
    from harness.services.java import java_home
    from harness.services.spark import VERSIONS, iceberg_runtime, interpreter

    newest = VERSIONS[-1]
    python = ["env", f"JAVA_HOME={java_home(*newest.java)}", "SPARK_LOCAL_IP=127.0.0.1", interpreter(newest)]
    return python, [iceberg_runtime(newest)]


PEERS = {
    "pyarrow": Peer("pyarrow write_dataset", writes_files("pyarrow"), installed=True),
    "duckdb": Peer("DuckDB COPY", writes_files("duckdb"), installed=True),
    "polars": Peer("Polars sink_parquet", writes_files("polars", "polars==2.1.0")),
    "datafusion": Peer("DataFusion COPY", writes_files("datafusion", "datafusion==55.0.0", *same("pyarrow"))),
    "zamboni": Peer("zamboni, with commit", commits("zamboni", zamboni, sql_table)),
    "compactor": Peer("Rust compactor, with commit", commits("compactor", compactor, rest_table)),
    "spark": Peer("Spark 4.1 local[2], 2 GB, with commit", commits("spark", spark, rest_table)),
}
