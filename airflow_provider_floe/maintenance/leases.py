"""Taking a table's lease, waiting for it, and keeping it while an operation runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from airflow_provider_floe.errors import FloeError, LeaseBusy, LeaseLost, OperationCancelled
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.stores.protocols import Lease
from airflow_provider_floe.tables import TableRef

log = logging.getLogger(__name__)

_POLL_SECONDS = 2.0


class LeaseKeeper:
    """Renews a lease in the background until it is stopped or lost, or the task is cancelled.

    So a cancelled task that hangs holds its table for one more lease period at most.
    """

    def __init__(self, env: Environment, lease: Lease, cancelled: Callable[[], bool]) -> None:
        self._env = env
        self._cancelled = cancelled
        self._ttl = timedelta(seconds=env.settings.lease_seconds)
        self._stop = threading.Event()
        self._reason: str | None = None
        self.lease = lease
        self.handed_over = False
        self._thread = threading.Thread(target=self._renew, name=f"floe-lease-{lease.table.ref()}", daemon=True)
        self._thread.start()

    def _renew(self) -> None:
        while not self._stop.wait(self._ttl.total_seconds() / 3) and not self._cancelled():
            try:
                self.lease = self._env.store.renew(self.lease, self._ttl)
            except LeaseLost as error:
                self._reason = str(error)
                return
            except FloeError as error:
                log.warning("lease of %s not renewed, trying again: %s", self.lease.table.ref(), error)

    def check(self) -> None:
        """:raises LeaseLost: when the lease is no longer ours."""
        if self._reason is not None:
            raise LeaseLost(self._reason)

    def verify(self) -> None:
        """Like :meth:`check`, but asks the store.

        :raises LeaseLost: when the lease ran out or another run took it.
        """
        self.check()
        if not self._env.store.holds(self.lease):
            raise LeaseLost(f"the lease of {self.lease.table.ref()} ran out or was taken over")

    def hand_over(self) -> None:
        """Leave the lease standing at the end, for whoever takes it over by its token."""
        self.handed_over = True

    def stop(self) -> None:
        """Stop renewing and wait for the thread."""
        self._stop.set()
        self._thread.join()


@contextmanager
def held_lease(
    env: Environment, table: TableRef, holder: str, *, cancelled: Callable[[], bool], token: str | None = None
) -> Iterator[LeaseKeeper]:
    """Wait for the table's lease, keep it for the block, release it after, unless it was handed over.

    :param token: of a lease that was left to us; taken at once where it still stands.
    :raises LeaseBusy: when another run still has it after ``lease_wait_seconds``.
    :raises OperationCancelled: when the task is cancelled while it waits.
    """
    ttl = timedelta(seconds=env.settings.lease_seconds)
    give_up = time.monotonic() + env.settings.lease_wait_seconds
    told = False
    lease = env.store.take_over(table, token, holder, ttl) if token else None
    while lease is None and (lease := env.store.acquire(table, holder, ttl)) is None:
        other = env.store.lease(table)
        who = f"{other.holder} until {other.expires_at:%H:%M:%S} UTC unless renewed" if other else "another run"
        if time.monotonic() >= give_up:
            raise LeaseBusy(
                f"{table} is maintained by {who}; gave up after {env.settings.lease_wait_seconds} s "
                "([floe] lease_wait_seconds)"
            )
        if cancelled():
            raise OperationCancelled(f"cancelled while waiting for the lease of {table}, held by {who}")
        if not told:
            log.info("%s is maintained by %s: waiting for its lease", table, who)
            told = True
        time.sleep(_POLL_SECONDS)
    keeper = LeaseKeeper(env, lease, cancelled)
    try:
        yield keeper
    finally:
        keeper.stop()
        if not keeper.handed_over:
            env.store.release(keeper.lease)
