"""DuckDB within limits: memory, threads, and a spill directory that goes with the connection."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

LEAST_MEMORY = 64 * 1024**2


@contextmanager
def connect(memory_bytes: int, threads: int = 1) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection of its own to an empty database in memory, in UTC."""
    with tempfile.TemporaryDirectory(prefix="floe-spill-") as directory:
        connection = duckdb.connect(
            config={
                "memory_limit": f"{max(LEAST_MEMORY, memory_bytes) // 1024}KiB",
                "threads": str(threads),
                "temp_directory": directory,
                "autoinstall_known_extensions": "false",
            }
        )
        try:
            yield connection
        finally:
            connection.close()
