"""The embedded engine: pyiceberg, pyarrow and DuckDB in the worker's own process; no JVM."""
