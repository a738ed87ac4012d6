"""Watches a job on an engine elsewhere while its task is deferred."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_provider_floe.errors import FloeError

if TYPE_CHECKING:
    from airflow_provider_floe.maintenance.environment import Environment
    from airflow_provider_floe.maintenance.watch import Look

T = TypeVar("T")

_SHORTEST, _LONGEST = 1.0, 15.0
_PACE = 20
"""A job is asked about once in a twentieth of the time that it has taken so far."""
_TELL_SECONDS = 30.0
_PATIENCE_SECONDS = 300.0
_ASK_SECONDS = 10.0
"""Of the 30 seconds that Airflow gives to clean up (``[triggerer] on_kill_timeout``)."""


class FloeRemoteJobTrigger(BaseTrigger):
    """Polls a job, renews its table's lease, and cancels the job past its deadline or when the task is killed.

    It holds nothing but ids: where it looks stands in the Floe store and in Airflow's connections. So it may be
    restarted, or moved to another triggerer, at any time. The event only says that it is worth looking; the task then
    executes again and takes the job over.

    :param operation_id: id of the operation record.
    :param lease_token: of the table's lease, which the task has left standing; no credential.
    :param deadline: when the job is to be cancelled, as ISO text; the schedule's own timeout.
    :param catalog_conn_id: see :class:`~airflow_provider_floe.operators.base.FloeOperator`.
    :param store_conn_id: see there.
    """

    def __init__(
        self,
        *,
        operation_id: str,
        lease_token: str,
        deadline: str | None = None,
        catalog_conn_id: str | None = None,
        store_conn_id: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operation_id = operation_id
        self.lease_token = lease_token
        self.deadline = deadline
        self.catalog_conn_id = catalog_conn_id
        self.store_conn_id = store_conn_id
        self._opened = ExitStack()
        self._env: Environment | None = None
        self._turn = threading.Lock()
        """A look that was under way when the task was killed ends before the job is cancelled: it renews the lease."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class and arguments."""
        return (
            f"{type(self).__module__}.{type(self).__name__}",
            {
                "operation_id": self.operation_id,
                "lease_token": self.lease_token,
                "deadline": self.deadline,
                "catalog_conn_id": self.catalog_conn_id,
                "store_conn_id": self.store_conn_id,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it is over, or the engine or the store has been silent for minutes."""
        began = heard = time.monotonic()
        told = -_TELL_SECONDS
        # A triggerer needs many seconds for the first such question, and on_kill has not so many
        asked = asyncio.create_task(self._is_deferred())
        try:
            while True:
                try:
                    found = await _in_thread(self._look)
                except FloeError as error:
                    self.log.warning("asking again: %s", error)
                    if time.monotonic() - heard > _PATIENCE_SECONDS:
                        yield self._event(str(error))
                        return
                else:
                    heard = time.monotonic()
                    if found.over or heard - told >= _TELL_SECONDS:
                        told = heard
                        self.log.info("%s", found.message)
                    if found.over:
                        yield self._event(found.message)
                        return
                await asyncio.sleep(min(max((time.monotonic() - began) / _PACE, _SHORTEST), _LONGEST))
        finally:
            asked.cancel()
            await _in_thread(self._opened.close)

    async def on_kill(self) -> None:
        """Cancel the job: the task was cleared or marked while it was deferred (Airflow 3.3 and newer).

        Airflow calls this, too, when another triggerer takes over from one that it thinks dead: the task is deferred
        still, and its job goes on.
        """
        self.log.info("operation %s: its task is not to go on", self.operation_id)
        if await self._is_deferred():
            self.log.info("another triggerer watches operation %s from now on", self.operation_id)
            return
        try:
            self.log.info("%s", await _in_thread(self._give_up))
        finally:
            await _in_thread(self._opened.close)

    def _event(self, message: str) -> TriggerEvent:
        return TriggerEvent({"operation_id": self.operation_id, "message": message})  # type: ignore[no-untyped-call]

    def _look(self) -> Look:
        from airflow_provider_floe.maintenance.watch import look

        deadline = datetime.fromisoformat(self.deadline) if self.deadline else None
        with self._turn:
            env = self._environment()
            try:
                found = look(env, self.operation_id, self.lease_token, deadline=deadline)
                self.lease_token = found.lease_token
                return found
            finally:
                env.store.close()  # keeps no connection while it sleeps: a triggerer has hundreds of these

    def _give_up(self) -> str:
        from airflow_provider_floe.maintenance.watch import give_up

        with self._turn:
            return give_up(self._environment(), self.operation_id, self.lease_token)

    def _environment(self) -> Environment:
        if self._env is None:
            from airflow_provider_floe.airflow_environment import open_environment

            self._env, _ = self._opened.enter_context(
                open_environment(
                    (),
                    catalog_conn_ids=[self.catalog_conn_id] if self.catalog_conn_id else None,
                    store_conn_id=self.store_conn_id,
                    several_tasks=True,
                )
            )
        return self._env

    async def _is_deferred(self) -> bool:
        """Whether Airflow says that the task is deferred; False where it cannot be asked."""
        instance = self.task_instance
        if instance is None:
            return False
        try:
            from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

            ask = _in_thread(
                lambda: RuntimeTaskInstance.get_task_states(
                    dag_id=instance.dag_id,
                    map_index=instance.map_index,
                    task_ids=[instance.task_id],
                    run_ids=[instance.run_id],
                )
            )
            states = await asyncio.wait_for(ask, _ASK_SECONDS)
        except Exception as error:
            self.log.debug("Airflow does not say what became of the task: %s", type(error).__name__)
            return False
        return any(state == "deferred" for tasks in states.values() for state in tasks.values())


async def _in_thread(call: Callable[[], T]) -> T:
    """Not in the event loop, which other triggers share; Airflow's connections can be had from there.

    Shielded, because a cancellation must come through with its message: by that Airflow knows to call ``on_kill``.
    """
    return await asyncio.shield(asyncio.ensure_future(sync_to_async(call, thread_sensitive=False)()))
