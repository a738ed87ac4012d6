"""Bring back what an operation moved to quarantine."""

from __future__ import annotations

from datetime import timedelta

from airflow_provider_floe.engines.local.deletion import restore as restore_files
from airflow_provider_floe.errors import ConfigurationError, LeaseBusy
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.stores.protocols import JournalKind


def restore(env: Environment, operation_id: str) -> int:
    """Move the quarantined files of an operation back to where they were.

    :returns: how many files came back.
    :raises ConfigurationError: when there is no such operation, or it quarantined nothing that is still there.
    :raises LeaseBusy: when the table is being maintained.
    """
    try:
        record = env.store.operation(operation_id)
    except KeyError:
        raise ConfigurationError(f"no operation {operation_id!r}: `airflow floe history` lists them") from None
    entries = [
        (entry.path, entry.quarantined_to)
        for entry in env.store.journal(operation_id, JournalKind.DELETION)
        if entry.quarantined_to is not None and entry.restored_at is None  # moved, or about to be when it died
    ]
    if not entries:
        raise ConfigurationError(f"operation {operation_id} has no files in quarantine")
    table = record.table.ref()
    lease = env.store.acquire(table, f"restore of {operation_id}", timedelta(seconds=env.settings.lease_seconds))
    if lease is None:
        raise LeaseBusy(f"{table} is being maintained: try again when that run is over")
    try:
        count = restore_files(env.catalog(table.catalog).load(table).io, entries)
        env.store.mark_restored(operation_id, [path for path, _ in entries])
    finally:
        env.store.release(lease)
    return count
