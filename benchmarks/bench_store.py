"""What a Floe store on PostgreSQL answers in, with many operation records beside one with few.

What a run asks for should cost about the same in both: the ratio says so. ``--scale full`` compares 1,000,000 records
with 10,000. PostgreSQL is started for the benchmark.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from harness.postgres import postgresql
from harness.store_scale import load_records, table

from airflow_provider_floe.stores.open import open_store
from airflow_provider_floe.stores.protocols import FloeStore, OperationStatus

SCALES = {"small": (1_000, 10_000), "full": (10_000, 1_000_000)}
"""Records."""
REPEATS = 30
UNSETTLED = [status for status in OperationStatus if not status.settled]

QUESTIONS: dict[str, Callable[[FloeStore, int], object]] = {
    "newest 100 records": lambda store, _: store.operations(),
    "records of a table": lambda store, n: store.operations(table=table(n), limit=1),
    "history of a table": lambda store, n: store.history(table(n)),
    "records of a plan": lambda store, n: store.operations(plan_id=f"plan-{n}"),
    "unsettled records": lambda store, _: store.operations(statuses=UNSETTLED),
}


def main() -> None:
    """Print milliseconds for each question, and the ratio between the sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", choices=SCALES, default="small")
    sizes = SCALES[parser.parse_args().scale]
    costs: dict[str, list[float]] = {question: [] for question in QUESTIONS}
    with postgresql() as server:
        for size in sizes:
            schema = f"of_{size}"
            server.execute(f"CREATE SCHEMA {schema}")
            store = open_store(server.url(schema=schema))
            started = time.perf_counter()
            load_records(server, store, schema, size)
            print(f"{size:>9,} records loaded in {time.perf_counter() - started:.1f} s", flush=True)
            for question, ask in QUESTIONS.items():
                costs[question].append(median(_timed(ask, store, number) for number in range(REPEATS)))
            store.close()
    print(f"{'milliseconds, median':<22}" + "".join(f"{size:>12,}" for size in sizes) + f"{'ratio':>8}")
    for question, (few, many) in costs.items():
        print(f"{question:<22}{1000 * few:>12.2f}{1000 * many:>12.2f}{many / few:>8.2f}")


def _timed(ask: Callable[[FloeStore, int], object], store: FloeStore, number: int) -> float:
    started = time.perf_counter()
    ask(store, number + 1)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
