"""Settle what dead tasks left behind: whoever looks next finds out what happened and puts it on record."""

from __future__ import annotations

import logging
import os
import socket
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow_provider_floe.engines.base import (
    OPERATION_ID_PROPERTY,
    SUMMARY_EVIDENCE,
    OperationResult,
    RemoteEngine,
)
from airflow_provider_floe.engines.local.expire import expiry_happened
from airflow_provider_floe.engines.local.expire_commit import give_back_refs
from airflow_provider_floe.errors import FloeError, LeaseBusy, LeaseLost, TableNotFound, UnsafeOperation
from airflow_provider_floe.iceberg.listing import delete_files
from airflow_provider_floe.iceberg.reachability import unreferenced
from airflow_provider_floe.iceberg.statistics import written_statistics
from airflow_provider_floe.maintenance.context import dead_outputs
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.events import Event, EventKind
from airflow_provider_floe.maintenance.slots import record_slot
from airflow_provider_floe.stores.protocols import (
    JournalKind,
    Lease,
    OperationRecord,
    OperationStatus,
    SlotOutcome,
)
from airflow_provider_floe.tables import Operation, TableRef

if TYPE_CHECKING:
    from pyiceberg.table import Table

log = logging.getLogger(__name__)

_UNSETTLED = tuple(status for status in OperationStatus if not status.settled)


def settle_all(env: Environment) -> list[OperationRecord]:
    """Settle the records of all tables whose lease is free; tables that another run maintains are left to it."""
    tables = {record.table.ref() for record in env.store.operations(statuses=_UNSETTLED, limit=10_000)}
    settled: list[OperationRecord] = []
    for table in sorted(tables):
        lease = env.store.acquire(table, _holder(), timedelta(seconds=env.settings.lease_seconds))
        if lease is None:
            continue
        try:
            settled += settle_table(env, table, lease)
        except FloeError as error:
            log.warning("%s not settled, the next run tries again: %s", table, error)
        finally:
            env.store.release(lease)
    return settled


def settle_table(env: Environment, table: TableRef, lease: Lease) -> list[OperationRecord]:
    """Settle the unfinished and UNKNOWN records of a table whose lease we hold, and clean up after the dead ones.

    Those under the lease itself are left: they are at work, or their job is waited for by who holds it.

    :raises LeaseBusy: when a job of a dead task may still run on an engine elsewhere: nothing may run beside it.
    """
    records = env.store.operations(table=table, statuses=_UNSETTLED, limit=10_000)
    settled = [_settle(env, record) for record in records if record.lease_token != lease.token]
    if settled or env.store.open_outputs(table):
        try:
            _clean_up(env, table)
        except Exception as error:  # the next run tries again; no run has to wait for that
            log.warning("%s: what dead operations wrote was not removed: %s", table, error)
    return [record for record in settled if record is not None]


def _settle(env: Environment, record: OperationRecord) -> OperationRecord | None:
    table = record.table.ref()
    try:
        loaded: Table | None = env.catalog(table.catalog).load(table)
    except TableNotFound:
        loaded = None
    result = _evidence(record, loaded) if loaded is not None else None
    if result is None and loaded is not None and _cancel_remote_job(env, record):
        result = _evidence(record, env.catalog(table.catalog).load(table))
    refs_lost = _give_back_refs(env, record) if result is not None else None
    if refs_lost is not None:
        status, error, message = OperationStatus.FAILED, refs_lost, f"its task died after its commit: {refs_lost}"
    elif result is not None:
        status, error = OperationStatus.SUCCESS, None
        message = f"its task died, but its commit is in the table: {result.message}"
    elif _may_still_land(env, record):
        return None
    else:
        status = OperationStatus.INTERRUPTED
        began = "after its commit began" if record.commit_detail else "before it committed anything"
        message = f"its task died {began}, and the table holds no commit of it: the rows are as they were"
        if loaded is None:
            message = "its task died, and the table is gone"
        error = message
    try:
        with env.store.transaction():
            settled = env.store.transition(
                record.id,
                expect=(record.status,),
                to=status,
                finished_at=env.store.now(),
                result=result,
                error=error,
                error_type="UnsafeOperation" if refs_lost else None if result else "Interrupted",
            )
            record_slot(env, settled, SlotOutcome.EXECUTED if result else SlotOutcome.INTERRUPTED, message)
    except LeaseLost:
        return None  # someone settled it first
    env.emit(
        Event(
            kind=EventKind.OPERATION_SETTLED,
            at=env.now(),
            level=logging.INFO if result else logging.WARNING,
            message=f"{table} {record.operation} {record.id} was {record.status}, is {status}: {message}",
            table=record.table,
            operation=record.operation,
            data={"operation_id": record.id, "outcome": status.value},
        )
    )
    return settled


def _give_back_refs(env: Environment, record: OperationRecord) -> str | None:
    """Finish what an expiry of the local engine must do after its commit; returns why it could not."""
    table = record.table.ref()
    if record.operation is Operation.EXPIRE_SNAPSHOTS:
        try:
            give_back_refs(lambda: env.catalog(table.catalog).load(table), record.commit_detail)
        except UnsafeOperation as error:
            return str(error)
    return None


def _cancel_remote_job(env: Environment, record: OperationRecord) -> bool:
    """Whether there was a job elsewhere; it is over then.

    :raises LeaseBusy: when it may still run.
    """
    engine: object = env.engines.get(record.engine or "")
    if record.remote_job is None or not isinstance(engine, RemoteEngine):
        return False
    try:
        over, why = engine.cancel(record.remote_job), "it was told to stop and has not"
    except FloeError as error:
        over, why = False, str(error)
    if not over:
        raise LeaseBusy(
            f"{record.table.ref()}: job {record.remote_job} on engine {record.engine}, whose task died, may still run "
            f"({why}): nothing runs beside it"
        )
    return True


def _evidence(record: OperationRecord, table: Table) -> OperationResult | None:
    """What the table itself says of the operation: None when it holds no trace of it."""
    if record.operation is Operation.EXPIRE_SNAPSHOTS:
        if record.commit_detail and expiry_happened(table, record.commit_detail):
            return OperationResult(
                changed=True,
                message="the snapshots are gone; files not deleted before it died are left to remove_orphan_files",
                snapshots_expired=len(record.commit_detail.get("snapshot_ids", ())),
                files_deleted=0,
            )
        return None
    if record.operation is Operation.COMPUTE_TABLE_STATS:
        return _statistics_evidence(record, table)
    evidence = record.commit_detail.get(SUMMARY_EVIDENCE) or {OPERATION_ID_PROPERTY: record.id}
    ours = [
        snapshot
        for snapshot in table.metadata.snapshots
        if snapshot.summary is not None and evidence.items() <= snapshot.summary.additional_properties.items()
    ]
    if not ours:
        return None
    totals = {
        name: sum(int(s.summary.additional_properties.get(key, 0)) for s in ours if s.summary is not None)
        for name, key in _SUMMARY_KEYS.items()
    }
    return OperationResult(
        changed=True,
        message=f"found by its {', '.join(evidence)} in snapshot {ours[-1].snapshot_id}",
        snapshot_before=ours[0].parent_snapshot_id,
        snapshot_after=ours[-1].snapshot_id,
        **totals,
    )


def _statistics_evidence(record: OperationRecord, table: Table) -> OperationResult | None:
    """Statistics make no snapshot and bear no operation id: those that are there now and were not before are it."""
    entry = written_statistics(table.metadata, record.commit_detail) if record.commit_detail else None
    if entry is None:
        return None
    return OperationResult(
        changed=True,
        message=f"the statistics of snapshot {entry.snapshot_id} are there: {entry.statistics_path}",
        files_added=1,
        bytes_added=entry.file_size_in_bytes,
        snapshot_before=record.commit_detail["snapshot_before"],
        snapshot_after=table.metadata.current_snapshot_id,
    )


_SUMMARY_KEYS = {
    "files_rewritten": "deleted-data-files",
    "bytes_rewritten": "removed-files-size",
    "files_added": "added-data-files",
    "bytes_added": "added-files-size",
    "delete_files_removed": "removed-delete-files",
    "manifests_rewritten": "manifests-replaced",
    "manifests_added": "manifests-created",
}


def _may_still_land(env: Environment, record: OperationRecord) -> bool:
    """A commit request that was sent may reach the catalog late: wait for one lease period before ruling it out."""
    if not record.commit_detail or record.commit_detail.get("committed"):
        return False
    since = record.finished_at or record.started_at
    return env.store.now() < since + timedelta(seconds=env.settings.lease_seconds)


def _clean_up(env: Environment, ref: TableRef) -> None:
    """Delete what operations wrote that died before their commit began (promise 10)."""
    entries = dead_outputs(env, ref)
    if not entries:
        return
    table = env.catalog(ref.catalog).load(ref)
    useless = unreferenced(table, (entry.path for entry in entries))
    delete_files(table.io, useless)
    for entry in entries:
        env.store.mark_done(entry.operation_id, JournalKind.OUTPUT, [entry.path])
    log.info("%s: removed %s files that dead operations had written and not committed", ref, len(useless))


def _holder() -> str:
    return f"settling on {socket.gethostname()} (pid {os.getpid()})"
