"""The same operations on equal tables by the three engines, side by side: local, Spark 3.5 and Trino 476.

Each table is in the same S3 store behind the same REST catalog. Servers are started for this run alone, and each
server does each operation once before on a small table, so that neither its start nor the loading of its classes is
measured. A worker is a process of its own for each operation; CPU time and peak memory are those of the
worker and of what it starts, and of the server's processes meanwhile. Store and catalog are the same for all, and are
left out.

    python benchmarks/bench_engines.py --scale full
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

SERVERS = {"local": None, "spark": "spark-gateway-3.5", "trino": "trino-476"}
OPERATIONS = ("rewrite_manifests", "rewrite_data_files", "expire_snapshots")
"""In an order in which each has something to do."""
SCALES = {"small": (12, 20_000), "full": (100, 100_000)}
"""Data files of a table, each of an append, and rows of a file."""
_SAMPLE_SECONDS = 0.02


@dataclass(frozen=True)
class Used:
    """What one engine took for one operation.

    :ivar wall: seconds; so ``cpu`` of the worker and ``server_cpu`` of the server.
    :ivar peak: most resident bytes of the worker's processes; ``server_peak`` of the server's.
    :ivar result: the operation's own numbers.
    """

    wall: float
    cpu: float
    server_cpu: float
    peak: int
    server_peak: int
    result: Mapping[str, Any]


def main() -> None:
    """Print a table for each operation, with ratios to the local engine."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", choices=SCALES, default="small")
    parser.add_argument("--engines", nargs="+", choices=SERVERS, default=list(SERVERS))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        _work(**json.loads(arguments.worker))
        return
    scale = SCALES[arguments.scale]
    with tempfile.TemporaryDirectory(prefix="floe-bench-") as folder:
        os.environ["FLOE_SERVICES_RUN"] = folder  # before the harness is imported: servers of this run's own
        from harness.services.rest import rest_catalog
        from harness.services.running import use

        servers = [server for engine in arguments.engines if (server := SERVERS[engine])]
        with use("s3", "rest", *servers) as services:
            catalog = rest_catalog(services)
            namespace = f"bench_{uuid4().hex[:8]}"
            catalog.create_namespace(namespace)
            print("tables of {} files with {:,} rows each".format(*scale))
            found: dict[str, dict[str, Used]] = {operation: {} for operation in OPERATIONS}
            for engine in arguments.engines:
                warm_up = [(3, 10)] if SERVERS[engine] else []
                for files, rows in (*warm_up, scale):
                    table = _table(catalog, namespace, files, rows)
                    for operation in OPERATIONS:
                        found[operation][engine] = _run(engine, services, operation, table)
            for operation, used in found.items():
                _show(operation, used)


def _table(catalog: Any, namespace: str, files: int, rows: int) -> list[str]:
    """A table with an append for each file: as many small files, manifests and snapshots."""
    import pyarrow as pa

    name = f"t{uuid4().hex[:8]}"
    schema = pa.schema([("id", pa.int64()), ("text", pa.string()), ("value", pa.float64())])
    properties = {"format-version": "2", "commit.manifest-merge.enabled": "false"}
    table = catalog.create_table((namespace, name), schema, properties=properties)
    for number in range(files):
        first = number * rows
        ids = range(first, first + rows)
        texts = [f"order {one * 2654435761 % 4294967296:08x}" for one in ids]
        table.append(pa.table([list(ids), texts, [one / 7 for one in ids]], schema=schema))
    return [namespace, name]


def _run(engine: str, services: Mapping[str, Mapping[str, str]], operation: str, table: list[str]) -> Used:
    """One operation in a worker of its own, with what it and the server use meanwhile."""
    import psutil

    server_name = SERVERS[engine]
    server = _server(services[server_name]) if server_name else None
    told = {"engine": engine, "services": dict(services), "operation": operation, "table": table}
    server_before = _cpu(server)
    with _peak_memory(server) as server_memory:
        worker = subprocess.Popen(
            [sys.executable, __file__, "--worker", json.dumps(told)], stdout=subprocess.PIPE, text=True
        )
        with _peak_memory(psutil.Process(worker.pid)) as memory:
            answer, _ = worker.communicate()
    if worker.returncode:
        raise SystemExit(f"{operation} by {engine} failed")
    found = json.loads(answer.splitlines()[-1])
    return Used(
        wall=found["wall"],
        cpu=found["cpu"],
        server_cpu=_cpu(server) - server_before,
        peak=max(memory),
        server_peak=max(server_memory),
        result=found["result"],
    )


def _work(engine: str, services: dict[str, dict[str, str]], operation: str, table: list[str]) -> None:
    """What a worker does: the operation, and a line of JSON about it."""
    from harness.services.rest import rest_catalog
    from harness.tables import context_for

    from airflow_provider_floe.engines.base import OperationRequest
    from airflow_provider_floe.policies.model import SETTINGS_MODELS
    from airflow_provider_floe.tables import Operation, TableRef

    documents: dict[str, dict[str, Any]] = {"expire_snapshots": {"retainLast": 1, "maxSnapshotAge": "PT1M"}}
    named = Operation(operation)
    settings = SETTINGS_MODELS[named].model_validate(documents.get(operation, {}))
    loaded = rest_catalog(services).load_table(tuple(table))
    request = OperationRequest(uuid4().hex, TableRef("prod", (table[0],), table[1]), named, settings)
    context = context_for(loaded, time=datetime.now(UTC) + timedelta(minutes=2))
    made = _engine(engine, services)
    made.probe()  # done once for a plan, not for each operation
    before, started = os.times(), time.perf_counter()
    result = made.execute(request, context)
    wall, after = time.perf_counter() - started, os.times()
    assert result.changed, result.message
    cpu = sum(after[:4]) - sum(before[:4])
    print(json.dumps({"wall": wall, "cpu": cpu, "result": result.model_dump(mode="json")}))


def _engine(name: str, services: dict[str, dict[str, str]]) -> Any:
    catalogs = {"prod": "lake"}
    if name == "local":
        from airflow_provider_floe.engines.local.engine import LocalEngine

        return LocalEngine(memory_limit_bytes=2**30)
    facts = services[str(SERVERS[name])]
    if name == "trino":
        from trino.dbapi import connect

        from airflow_provider_floe.engines.trino.engine import TrinoEngine

        return TrinoEngine(lambda: connect(host=facts["host"], port=int(facts["port"]), user="bench"), catalogs)
    from harness.spark_sql import gateway_command

    from airflow_provider_floe.engines.spark.engine import SparkEngine
    from airflow_provider_floe.engines.spark.process import SparkSubmit
    from airflow_provider_floe.engines.spark.submit import SubmitRoute

    command, variables = gateway_command(facts)
    submit = SparkSubmit(command, environment=variables, connection="spark_bench")
    return SparkEngine(SubmitRoute(submit, "spark_bench"), catalogs)


def _server(facts: Mapping[str, str]) -> Any:
    """The process that listens on the server's port."""
    import psutil

    port = int(facts.get("PYSPARK_GATEWAY_PORT") or facts["port"])
    return next(
        psutil.Process(one.pid)
        for one in psutil.net_connections(kind="tcp")
        if one.laddr and one.laddr.port == port and one.status == psutil.CONN_LISTEN and one.pid
    )


def _cpu(process: Any) -> float:
    """Seconds of a process and of its children that are over."""
    return sum(process.cpu_times()[:4]) if process is not None else 0.0


@contextmanager
def _peak_memory(process: Any) -> Iterator[list[int]]:
    """Samples of the resident memory of a process and its descendants; beside a block, in a thread."""
    import psutil

    samples = [0]
    over = threading.Event()

    def sample() -> None:
        while process is not None and not over.wait(_SAMPLE_SECONDS):
            with suppress(psutil.Error):
                samples.append(sum(_resident(one) for one in (process, *process.children(recursive=True))))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def _resident(process: Any) -> int:
    import psutil

    with suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def _show(operation: str, found: Mapping[str, Used]) -> None:
    base = found.get("local") or next(iter(found.values()))
    print(
        f"{operation:<22}{'wall s':>8}{'':>7}{'CPU s':>8}{'':>7}{'of server':>11}{'peak MB':>9}{'':>7}{'of server':>11}"
        f"{'MB in':>8}{'MB out':>8}"
    )
    for engine, used in found.items():
        cpu, base_cpu = used.cpu + used.server_cpu, base.cpu + base.server_cpu
        peak, base_peak = used.peak + used.server_peak, base.peak + base.server_peak
        result = used.result
        bytes_in = result["bytes_rewritten"] or result["bytes_deleted"]
        print(
            f"  {engine:<20}{used.wall:>8.2f}{_ratio(used.wall, base.wall)}{cpu:>8.2f}{_ratio(cpu, base_cpu)}"
            f"{used.server_cpu:>11.2f}{peak / 1e6:>9,.0f}{_ratio(peak, base_peak)}{used.server_peak / 1e6:>11,.0f}"
            f"{bytes_in / 1e6:>8.2f}{result['bytes_added'] / 1e6:>8.2f}  {result['message']}"
        )


def _ratio(value: float, base: float) -> str:
    return f"{f'x{value / base:.1f}':>7}" if base else f"{'':>7}"


if __name__ == "__main__":
    main()
