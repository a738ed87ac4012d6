"""The independent reader: DuckDB's iceberg extension, which shares no code with pyiceberg or this package.

It lives in an environment of its own, because its extension wheels fit one version of DuckDB only.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from harness.environments import environment

VERSION = "1.5.5"
REQUIREMENTS = (
    f"duckdb=={VERSION}",
    f"duckdb-extensions=={VERSION}",
    f"duckdb-extension-avro=={VERSION}",
    f"duckdb-extension-httpfs=={VERSION}",
    f"duckdb-extension-iceberg=={VERSION}",
)


class Digest(NamedTuple):
    """What a table holds, whatever the order of its rows and the files that they stand in.

    :ivar hash: sum of the hashes of all rows, so that duplicates count.
    """

    rows: int
    hash: int


class _Worker:
    """One DuckDB process, which answers a line of JSON for each line of JSON."""

    def __init__(self) -> None:
        python = environment("oracle", REQUIREMENTS)
        script = Path(__file__).with_name("oracle_worker.py")
        self._process = subprocess.Popen(
            [python, script, python.parents[1] / "extensions"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._lock = threading.Lock()

    def ask(self, path: str, snapshot_id: int | None, s3: Mapping[str, str] | None) -> Digest:
        asked = {"path": path, "snapshot": snapshot_id, "s3": dict(s3) if s3 else None}
        assert self._process.stdin
        assert self._process.stdout
        with self._lock:
            self._process.stdin.write(json.dumps(asked) + "\n")
            told = self._process.stdout.readline()
        if not told:
            _worker.cache_clear()  # the next question goes to a new process
            raise AssertionError(f"DuckDB broke down over {path}")
        answer = json.loads(told)
        if "error" in answer:
            raise AssertionError(f"DuckDB cannot read {path}: {answer['error']}")
        return Digest(**answer)


@lru_cache(maxsize=1)
def _worker() -> _Worker:
    return _Worker()


def oracle_digest(
    metadata_location: str, snapshot_id: int | None = None, *, s3: Mapping[str, str] | None = None
) -> Digest:
    """Rows and digest of the table whose current metadata file this is, deletes applied.

    :param snapshot_id: default: the current one.
    :param s3: the facts of the service, for tables in that store.
    :raises AssertionError: when DuckDB cannot read the table.
    """
    return _worker().ask(metadata_location, snapshot_id, s3)


def parquet_digest(path: str) -> Digest:
    """Rows and digest of a Parquet file, which are those of a table with the same columns and rows."""
    return _worker().ask(path, None, None)
