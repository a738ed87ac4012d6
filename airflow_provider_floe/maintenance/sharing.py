"""Sharing the file groups of one operation among the tasks of a run: one task commits, others help it write."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any

from airflow_provider_floe.engines.base import OperationRequest
from airflow_provider_floe.engines.sharing import GroupOffer, SharingEngine
from airflow_provider_floe.errors import FloeError, LeaseLost, OperationCancelled
from airflow_provider_floe.health.report import new_id
from airflow_provider_floe.maintenance.context import RunningOperation
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.locations import TableLocations
from airflow_provider_floe.planning.model import Plan, PlanItem
from airflow_provider_floe.policies.model import SETTINGS_MODELS
from airflow_provider_floe.stores.protocols import FileGroup, OperationRecord, OperationStatus

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
PATIENCE_SECONDS = 300.0
"""How long a helper waits for the task that it is to help."""

_AT_WORK = (OperationStatus.RUNNING, OperationStatus.COMMITTING)


class StoreBoard:
    """One operation's file groups in the Floe store, a :class:`~airflow_provider_floe.engines.sharing.GroupBoard`.

    To be used as a context: meanwhile a thread keeps what this worker has taken, and looks whether the operation is
    still at work.

    :param commits: this is the task that commits: the groups go when it ends.
    """

    def __init__(self, env: Environment, record: OperationRecord, *, commits: bool) -> None:
        self._store = env.store
        self._operation_id = record.id
        self._lease_token = record.lease_token
        self._commits = commits
        self._worker = new_id()
        self._ttl = timedelta(seconds=env.settings.lease_seconds)
        self._stop = threading.Event()
        self._over: str | None = None
        self._thread = threading.Thread(target=self._keep, name=f"floe-groups-{record.id}", daemon=True)

    def __enter__(self) -> StoreBoard:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._commits:
            self._store.drop_file_groups(self._operation_id)
        else:
            self._store.give_back_file_groups(self._operation_id, self._worker)

    def offer(self, snapshot_id: int, groups: Sequence[GroupOffer]) -> None:
        """See the protocol, as for all that follows."""
        self._store.offer_file_groups(
            self._operation_id,
            [
                FileGroup(number=one.number, snapshot_id=snapshot_id, size_bytes=one.size_bytes, digest=one.digest)
                for one in groups
            ],
        )

    def offered(self) -> tuple[int, Sequence[GroupOffer]]:
        """The snapshot and its groups.

        :raises LeaseLost: when they are gone, since the operation has come to its end.
        """
        groups = self._store.file_groups(self._operation_id)
        if not groups:
            raise LeaseLost(f"operation {self._operation_id} is over: nothing to help")
        return groups[0].snapshot_id, [GroupOffer(one.number, one.size_bytes, one.digest) for one in groups]

    def claim(self, before: int) -> int | None:
        """The first group that is free."""
        return self._store.claim_file_group(self._operation_id, self._worker, self._ttl, before=before)

    def finish(self, number: int, written: Mapping[str, Any]) -> None:
        """Hand in what was written."""
        self._store.finish_file_group(self._operation_id, self._worker, number, written)

    def give_back(self, number: int) -> None:
        """Let another task take the group."""
        self._store.give_back_file_groups(self._operation_id, self._worker, number)

    def unfinished(self, before: int) -> int:
        """Groups below this number that were not handed in."""
        return self._store.unfinished_file_groups(self._operation_id, before=before)

    def finished(self) -> Mapping[int, Mapping[str, Any]]:
        """What was handed in, by number."""
        groups = self._store.file_groups(self._operation_id)
        return {one.number: one.written for one in groups if one.written is not None}

    def check(self) -> None:
        """:raises LeaseLost: when the operation is over, or another try carries it out."""
        if self._over is not None:
            raise LeaseLost(self._over)

    def _keep(self) -> None:
        renewed = time.monotonic()
        while not self._stop.wait(POLL_SECONDS):
            try:
                record = self._store.operation(self._operation_id)
                if record.status not in _AT_WORK or record.lease_token != self._lease_token:
                    self._over = f"operation {record.id} on {record.table.ref()} is {record.status}: nothing to help"
                    return
                if time.monotonic() - renewed >= self._ttl.total_seconds() / 3:
                    self._store.renew_file_groups(self._operation_id, self._worker, self._ttl)
                    renewed = time.monotonic()
            except FloeError as error:
                log.warning("file groups of operation %s not renewed, trying again: %s", self._operation_id, error)


class _Helping(RunningOperation):
    """What an engine gets that helps: it may write files that are on record, and neither commit nor delete."""

    def __init__(
        self,
        env: Environment,
        record: OperationRecord,
        board: StoreBoard,
        locations: TableLocations,
        *,
        deadline: datetime | None,
        cancelled: Callable[[], bool],
    ) -> None:
        super().__init__(env, record, None, locations, deadline=deadline, cancelled=cancelled)
        self._board = board

    def checkpoint(self) -> None:
        """:raises LeaseLost: when there is nothing to help any more; or OperationCancelled, see the protocol."""
        self._board.check()
        super().checkpoint()


def help_item(
    env: Environment, plan: Plan, item: PlanItem, locations: TableLocations, *, cancelled: Callable[[], bool]
) -> int:
    """Write file groups of an item that another task of the run carries out; returns how many.

    Ends when there is nothing left to take. What goes wrong here is the other task's to find out for itself, so that
    it only ends the help.

    :raises OperationCancelled: when this task was cancelled.
    """
    engine: object = env.engines[item.engine or ""]
    assert isinstance(engine, SharingEngine)
    give_up = time.monotonic() + PATIENCE_SECONDS
    while (record := _offering(env, plan, item)) is None or not env.store.file_groups(record.id):
        if _is_done(env, plan, item):
            return 0
        if cancelled():
            raise OperationCancelled(f"{item.operation} on {item.table.ref()}: the help was cancelled")
        if time.monotonic() >= give_up:
            log.info("%s on %s has not begun: it goes on without this task", item.operation, item.table.ref())
            return 0
        time.sleep(POLL_SECONDS)
    deadline = record.started_at + timedelta(hours=item.timeout_hours) if item.timeout_hours else None
    request = OperationRequest(
        operation_id=record.id,
        table=item.table.ref(),
        operation=item.operation,
        settings=SETTINGS_MODELS[item.operation].model_validate(item.settings),
        ignored_settings=item.ignored_settings,
        deadline=deadline,
    )
    try:
        with StoreBoard(env, record, commits=False) as board:
            context = _Helping(env, record, board, locations, deadline=deadline, cancelled=cancelled)
            return engine.help(request, context, board)
    except Exception as error:
        if cancelled():
            raise OperationCancelled(f"{item.operation} on {item.table.ref()}: the help was cancelled") from error
        log.warning("%s on %s: this task helps no more: %s", item.operation, item.table.ref(), error)
    return 0


def _offering(env: Environment, plan: Plan, item: PlanItem) -> OperationRecord | None:
    records = env.store.operations(table=item.table.ref(), plan_id=plan.id, statuses=_AT_WORK, limit=100)
    return next((record for record in records if record.item_id == item.id), None)


def _is_done(env: Environment, plan: Plan, item: PlanItem) -> bool:
    """Whether the item came to an end that no retry changes."""
    records = env.store.operations(table=item.table.ref(), plan_id=plan.id, limit=100)
    newest = next((record for record in records if record.item_id == item.id), None)
    return newest is not None and newest.status.settled and newest.status is not OperationStatus.INTERRUPTED
