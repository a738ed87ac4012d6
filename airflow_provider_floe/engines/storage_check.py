"""Looks, after an engine elsewhere deleted files of a table, at what is left in storage."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from pyiceberg.table import Table

from airflow_provider_floe.engines.base import OperationContext
from airflow_provider_floe.errors import UnsafeOperation, VerificationFailed
from airflow_provider_floe.iceberg.file_comparison import Comparison
from airflow_provider_floe.iceberg.listing import file_size, list_files
from airflow_provider_floe.iceberg.paths import DEFAULT_RULES, normalise
from airflow_provider_floe.iceberg.reachability import ReferenceWalk
from airflow_provider_floe.tables import TableRef

_MEMORY = 256 * 1024**2
_HEADS = 16


def verify_storage(context: OperationContext, table_ref: TableRef, engine: str) -> None:
    """Hold a listing of the table's location against what the table references.

    :param engine: who deleted, for people.
    :raises VerificationFailed: when a file that the table references is gone from storage.
    """
    table = context.load_table()
    root = table.location()
    with Comparison(normalise(root), DEFAULT_RULES, _MEMORY) as comparison:
        for batch in list_files(table.io, root):
            comparison.add_listed(batch)
        fresh = context.load_table()
        known = {snapshot.snapshot_id for snapshot in table.metadata.snapshots}
        comparison.add_referenced((file, True) for file in ReferenceWalk().new_files(fresh, known))
        try:
            comparison.refuse_partial_listing(root)
        except UnsafeOperation as error:
            raise VerificationFailed(f"after {engine} deleted files of {table_ref}: {error}") from error


def gone(table: Table, paths: Iterable[str]) -> set[str]:
    """Those of the files that are not in storage any more."""
    every = list(paths)
    with ThreadPoolExecutor(_HEADS, thread_name_prefix="floe-gone") as pool:
        sizes = pool.map(lambda path: file_size(table.io, path), every)
        return {path for path, size in zip(every, sizes, strict=True) if size is None}
